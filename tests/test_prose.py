"""Plain English in the docs, the command line's help and the error messages.

`python tests/test_prose.py` lists every sentence that breaks a rule; `docs`, `help` or `errors` selects one kind of text.
"""

import ast
import inspect
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from cyclopts import App
from markdown_it import MarkdownIt

from layeralign.cli import app

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
NAMED = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")]
PAGES = [*NAMED, *sorted((ROOT / "docs").rglob("*.md"))]
LONGEST, MEAN = 35, 20
"""Words in a sentence: at most, and on average over a page, a command, or a package's errors."""
BANNED = """
    alike; always valid; anew; aught; beside; beyond measure; but for; errs?; ever after; for good; goes on;
    going on with; gone on; had by hand; hand in hand; hinders?; kept rows?; lessons?; mend(s|ed|ing)?; nought;
    patien(ce|tly); price of harm; put to (a|the) model; reckon(s|ed|ing)?; separation; so far as;
    squeez(e|es|ed|ing); start (answers?|policy); strangers?; strict reading; tells? (them |the two )?apart;
    to be had; told apart; vouch(es)?; wants; what was asked; whole or not at all; whoever; witness(es)?
"""
BANNED_WORD = re.compile(rf"\b(?:{'|'.join(each.strip() for each in BANNED.split(';'))})\b", re.IGNORECASE)
RANGE = r"[-+−]?\d[\d.,]*\s*(?:–|-|to)\s*[-+−]?\d[\d.,]*"
WRONG_INTERVAL = re.compile(rf"%\s*[(\[]{RANGE}\s*%?[)\]]|[(\[]{RANGE}\s*%[)\]]")
"""`12 % (8–17)` or `(8–17 %)`; an interval is written `12 % [8, 17]`."""
PLAIN = {"code_inline": "CODE", "softbreak": "\n", "hardbreak": "\n", "image": "", "html_inline": ""}
SENTENCE_END = re.compile(r"(?<!e\.g\.)(?<!i\.e\.)(?<! al\.)(?<=[.!?])[\"')\]*]*\s+(?=[^a-z\s]|layeralign)")


@dataclass(frozen=True)
class Text:
    """A paragraph: of which page, command or package (`part`), and where it starts."""

    part: str
    file: str
    line: int
    prose: str

    def sentences(self) -> Iterator[tuple[str, str]]:
        """Each sentence with its `file:line`."""
        ends = [0, *(end.end() for end in SENTENCE_END.finditer(self.prose)), len(self.prose)]
        for start, end in itertools.pairwise(ends):
            line = self.line + self.prose.count("\n", 0, start)
            yield f"{self.file}:{line}", " ".join(self.prose[start:end].split())


def offenders(texts: list[Text]) -> list[str]:
    """Everything that breaks a rule, one line each."""
    found, lengths = [], {}
    for text in texts:
        for where, sentence in text.sentences():
            words = sum(bool(re.search(r"\w", word)) for word in sentence.split())
            lengths.setdefault(text.part, []).append(words)
            wrong = [m.group() for rule in (BANNED_WORD, WRONG_INTERVAL) for m in rule.finditer(sentence)]
            wrong += [f"{words} words"] * (words > LONGEST)
            found += [f"{where}: {what}: {sentence}" for what in wrong]
    means = {part: sum(each) / len(each) for part, each in lengths.items()}
    found += [
        f"{part}: {mean:.1f} words a sentence on average" for part, mean in means.items() if mean > MEAN
    ]
    return list(dict.fromkeys(found))


def of_markdown(source: str, file: str, part: str, first: int = 1) -> list[Text]:
    """The paragraphs: no code, tables, headings, pictures or targets of links; inline code is the word CODE."""
    found = []
    for before, token in itertools.pairwise(MarkdownIt().enable("table").parse(source)):
        if token.type == "inline" and before.type == "paragraph_open":
            prose = "".join(PLAIN.get(child.type, child.content) for child in token.children)
            found.append(Text(part, file, first + token.map[0], prose))
    return [text for text in found if text.prose.strip()]


def of_page(page: Path) -> list[Text]:
    """The paragraphs of a file."""
    return of_markdown(page.read_text(encoding="utf-8"), *[str(page.relative_to(ROOT))] * 2)


@cache
def source_lines() -> list[tuple[str, int, str]]:
    """Every line of the package with its file and number."""
    texts = [(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8").splitlines()) for path in SOURCES]
    return [(file, at, line) for file, lines in texts for at, line in enumerate(lines, 1)]


def of_help(app: App = app, name: str = "layeralign") -> list[Text]:
    """The help of every command and of every flag, each at the line where it is written."""
    told = [("", re.split(r"\n(?:Args:|Parameters\n)", inspect.cleandoc(app.help or ""))[0])]
    if app.default_command:
        told += [
            (a.name, a.parameter.help or "") for a in app.assemble_argument_collection(parse_docstring=True)
        ]
    found = []
    for flag, text in told:
        start, nowhere = text.strip().split("\n")[0][:40], (f"{name} {flag}".strip(), 1, "")
        file, at, _ = next((line for line in source_lines() if start and start in line[2]), nowhere)
        found += of_markdown(text, file, name, at)
    return found + [text for key in app if key[0] != "-" for text in of_help(app[key], f"{name} {key}")]


def of_errors() -> list[Text]:
    """The message of every `LayeralignError(...)`; a field in it is the word FIELD."""
    calls = [(str(path.relative_to(ROOT)), node) for path in SOURCES for node in ast.walk(ast.parse(path.read_bytes()))
             if isinstance(node, ast.Call) and ast.unparse(node.func) == "LayeralignError" and node.args]  # fmt: skip
    return [
        Text("/".join(file.split("/")[:3]), file, node.lineno, literal(node.args[0])) for file, node in calls
    ]


def literal(node: ast.expr) -> str:
    """What is known of a message before the program runs."""
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return literal(node.left) + literal(node.right)
    return str(node.value) if isinstance(node, ast.Constant) else "FIELD"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_docs_are_plain(page: Path) -> None:
    found = offenders(of_page(page))
    assert not found, "\n" + "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("texts", [of_help, of_errors], ids=["help", "errors"])
def test_the_program_speaks_plainly(texts: Callable[[], list[Text]]) -> None:
    found = offenders(texts())
    assert not found, "\n" + "\n".join(found)


if __name__ == "__main__":
    docs = list(itertools.chain(*map(of_page, PAGES)))
    for kind, texts in {"docs": docs, "help": of_help(), "errors": of_errors()}.items():
        if kind in (sys.argv[1:] or [kind]):
            listed = offenders(texts)
            print(*listed, f"{kind}: {len(listed)} offenders\n", sep="\n")
