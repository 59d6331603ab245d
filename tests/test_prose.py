"""Plain English in the docs, the command line's help and the error messages.

`python tests/test_prose.py` lists every sentence that breaks a rule, `python tests/test_prose.py docs` those of the docs.
"""

import ast
import inspect
import itertools
import re
import sys
from collections.abc import Iterator
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
PAGES = sorted([*NAMED, *(ROOT / "docs").rglob("*.md")])
LONGEST, MEAN = 35, 20
"""Words in a sentence: at most, and on average over a page, a command or a source file."""
BANNED = """
    alike; always valid; anew; aught; beside; beyond measure; but for; errs?; ever after; for good; goes on;
    going on with; gone on; had by hand; hand in hand; hinders?; kept rows?; lessons?; mend(s|ed|ing)?; nought;
    patien(ce|tly); price of harm; put to (a|the) model; reckon(s|ed|ing)?; separation; so far as;
    squeez(e|es|ed|ing); start (answers?|policy); strangers?; strict reading; tells? (them |the two )?apart;
    told apart; vouch(es)?; what was asked; whole or not at all; whoever; witness(es)?
"""
BANNED_WORD = re.compile(rf"\b(?:{'|'.join(each.strip() for each in BANNED.split(';'))})\b", re.IGNORECASE)
NUMBER = r"[-+−]?\d[\d.,]*"
WRONG_INTERVAL = re.compile(
    rf"%\s*[(\[]{NUMBER}\s*(?:–|-|to)\s*{NUMBER}\s*%?[)\]]|[(\[]{NUMBER}\s*(?:–|-|to)\s*{NUMBER}\s*%[)\]]"
)
"""`12 % (8–17)` or `(8–17 %)`; an interval is written `12 % [8, 17]`."""
PLAIN = {"code_inline": "CODE", "softbreak": "\n", "hardbreak": "\n", "image": "", "html_inline": ""}
SENTENCE_END = re.compile(
    r"(?<!e\.g\.)(?<!i\.e\.)(?<! al\.)(?<!vs\.)(?<=[.!?])[\"')\]*]*\s+(?=[^a-z\s]|layeralign)"
)


@dataclass(frozen=True)
class Text:
    """A paragraph of prose, with the place where it starts; inline code is the word CODE, a field is FIELD."""

    part: str
    file: str
    line: int
    prose: str

    def sentences(self) -> Iterator[tuple[str, str]]:
        """Each sentence with its `file:line`."""
        start = 0
        for end in [*(m.end() for m in SENTENCE_END.finditer(self.prose)), len(self.prose)]:
            line = self.line + self.prose.count("\n", 0, start)
            yield f"{self.file}:{line}", " ".join(self.prose[start:end].split())
            start = end


def words(sentence: str) -> int:
    """How many words a sentence has; signs and dashes are none."""
    return sum(bool(re.search(r"\w", word)) for word in sentence.split())


def offenders(texts: list[Text]) -> list[str]:
    """What breaks a rule, one line each."""
    found: list[str] = []
    lengths: dict[str, list[int]] = {}
    for text in texts:
        for where, sentence in text.sentences():
            lengths.setdefault(text.part, []).append(words(sentence))
            if words(sentence) > LONGEST:
                found.append(f"{where}: {words(sentence)} words: {sentence}")
            found += [f"{where}: {m.group()!r}: {sentence}" for m in BANNED_WORD.finditer(sentence)]
            found += [
                f"{where}: interval {m.group()!r}: {sentence}" for m in WRONG_INTERVAL.finditer(sentence)
            ]
    for part, each in lengths.items():
        mean = sum(each) / len(each)
        found += [f"{part}: {mean:.1f} words a sentence on average"] if mean > MEAN else []
    return found


def of_markdown(source: str, file: str, part: str, first: int = 1) -> list[Text]:
    """The paragraphs of a page: no code, tables, headings, pictures or targets of links."""
    found, tokens = [], MarkdownIt().enable("table").parse(source)
    for before, token in itertools.pairwise(tokens):
        if token.type == "inline" and before.type == "paragraph_open" and token.map:
            prose = "".join(PLAIN.get(child.type, child.content) for child in token.children or [])
            found.append(Text(part, file, first + token.map[0], prose))
    return [text for text in found if text.prose.strip()]


def of_page(page: Path) -> list[Text]:
    """The paragraphs of a file."""
    name = str(page.relative_to(ROOT))
    return of_markdown(page.read_text(encoding="utf-8"), name, name)


@cache
def _lines() -> list[tuple[str, int, str]]:
    return [(str(p.relative_to(ROOT)), n, line.strip().lstrip('"')) for p in SOURCES
            for n, line in enumerate(p.read_text(encoding="utf-8").splitlines(), 1)]  # fmt: skip


def of_help(app: App = app, name: str = "layeralign") -> list[Text]:
    """The help of every command and of every flag, each where it is written."""
    told = [("", re.split(r"\n(?:Args:|Parameters\n)", inspect.cleandoc(app.help or ""))[0])]
    if app.default_command:
        told += [
            (a.name, a.parameter.help or "") for a in app.assemble_argument_collection(parse_docstring=True)
        ]
    found = []
    for flag, text in told:
        start, nowhere = text.strip().split("\n")[0][:40], (f"{name} {flag}".strip(), 1, "")
        file, line, _ = next((hit for hit in _lines() if start and start in hit[2]), nowhere)
        found += of_markdown(text, file, name, line)
    inner = [key for key in app if not key.startswith("-")]
    return found + [text for key in inner for text in of_help(app[key], f"{name} {key}")]


def of_errors() -> list[Text]:
    """The message of every `LayeralignError(...)`."""
    found = []
    for source in SOURCES:
        name = str(source.relative_to(ROOT))
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "LayeralignError" and node.args:
                found.append(Text(name, name, node.lineno, _literal(node.args[0])))
    return found


def _literal(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_literal(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _literal(node.left) + _literal(node.right)
    return "FIELD"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_docs_are_plain(page: Path) -> None:
    found = offenders(of_page(page))
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("texts", [of_help, of_errors], ids=["help", "errors"])
def test_the_program_speaks_plainly(texts) -> None:
    found = list(dict.fromkeys(offenders(texts())))
    assert not found, "\n" + "\n".join(found)


if __name__ == "__main__":
    every_page = [text for page in PAGES for text in of_page(page)]
    for kind, texts in {"docs": every_page, "help": of_help(), "errors": of_errors()}.items():
        if kind in (sys.argv[1:] or [kind]):
            listed = list(dict.fromkeys(offenders(texts)))
            print(*listed, f"{kind}: {len(listed)} offenders\n", sep="\n")
