"""The code blocks of a page: found, run in the page's order, or at least held against the real thing.

What a block's fence says after its language decides: `sh run` and `python run` are run, `exits=2` with the exit code
that is expected; `file=NAME` is kept as that file for the blocks that follow; `text` straight after a block that is
run is what it printed. All other `sh` and `python` is checked without being run.

`python tests/pages.py PAGE` runs a page and puts what is printed into it.
"""

import ast
import builtins
import contextlib
import importlib
import inspect
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

import yaml
from markdown_it import MarkdownIt

from layeralign.cli import app, main

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    marks: tuple[str, ...]
    text: str

    @property
    def where(self):
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def runs(self):
        return "run" in self.marks

    def mark(self, name):
        return next((mark.partition("=")[2] for mark in self.marks if mark.startswith(f"{name}=")), None)


def blocks(page):
    found = []
    for token in MarkdownIt().parse(page.read_text()):
        if token.type == "fence":
            language, *marks = token.info.split() or [""]
            found.append(Block(page, token.map[0] + 1, language, tuple(marks), token.content))
    return found


# --- running


def run_page(page, folder):
    """Run what a page runs, in order, in `folder`; gives each text block that shows an output, with that output."""
    names, said = {"__name__": page.stem}, None
    for block in blocks(page):
        if block.mark("file"):
            (folder / block.mark("file")).write_text(block.text)
        if block.language == "text" and said is not None:
            yield block, said
        said = run(block, names) if block.runs else None


def run(block, names):
    """What the block prints; `names` are those that the page's Python has defined so far."""
    return _python(block, names) if block.language == "python" else _shell(block)


def _python(block, names):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile("\n" * block.line + block.text, block.where, "exec"), names)
    return said.getvalue()


def _shell(block):
    """Each command in turn; those of layeralign in this process, which has torch loaded already.

    What goes to stderr is progress, and no part of what is printed, but for an error's sentence.
    """
    said, code = "", 0
    for command in commands(block.text):
        if code:
            raise AssertionError(
                f"{block.where}: goes on after exit code {code}; a block ends with what fails"
            )
        words = shlex.split(command, comments=True)
        if words[:1] == ["layeralign"] and not re.search(r"[|<>&;$`]", command):
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(words[1:])
            said += out.getvalue() + err.getvalue() * (code == 1)
        else:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True, check=False,
                env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            )  # fmt: skip
            said, code = said + done.stdout + done.stderr, done.returncode
    expected = int(block.mark("exits") or 0)
    assert code == expected, f"{block.where}: exit code {code}, expected {expected}:\n{said}"
    return said


def commands(text):
    """The commands of a shell block, one a line, continued lines joined, comments left out."""
    joined = text.replace("\\\n", " ").splitlines()
    return [line for line in joined if line.strip() and not line.lstrip().startswith("#")]


def shape(text):
    """What of an output is the same everywhere: its words. Figures, marks, bars and spaces depend on the machine."""
    words = re.sub(r"[\u2500-\u259f\s]+", " ", text)  # lines of tables, and bars
    return re.sub(r"#(, #)+", "#", re.sub(r"[-+−]?\d+(\.\d+)?!?", "#", words)).strip()


# --- checking


def check(block):
    """Raise where the block cannot be right; nothing is run."""
    {"sh": _check_shell, "python": _check_python, "json": _check_json, "text": lambda _: None,
     "yaml": lambda b: yaml.safe_load(b.text), "toml": lambda b: tomllib.loads(b.text)}[block.language](block)  # fmt: skip


def _check_json(block):
    for line in block.text.splitlines() if block.mark("file") else [block.text]:
        json.loads(line)


def _check_shell(block):
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    for command in commands(block.text):
        for part in re.split(r"&&|\|\|?|;", command):
            words = shlex.split(part, comments=True)
            if "layeralign" in words and words[0] in ("layeralign", "accelerate", "python"):
                _check_command(words[words.index("layeralign") + 1 :])
            elif words[:1] == ["make"]:
                _check_targets(words[1:])
            elif words[:1] in (["python"], ["pytest"], ["bash"], ["sh"]):
                _check_files(words[1:])


def _check_command(words):
    """What cyclopts makes of it: every flag is there, every value can be read, nothing is missing."""
    words = [w for at, w in enumerate(words) if ">" not in w and (not at or ">" not in words[at - 1])]
    app.parse_args(words, exit_on_error=False, print_error=False)


def _check_targets(words):
    known = re.findall(r"^([\w./]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(words) <= set(known), f"make {words}: the Makefile has {known}"


def _check_files(words):
    for word in words:
        if word.endswith((".py", ".sh")):
            assert (ROOT / word).is_file(), f"{word}: there is no such file"


def _check_python(block):
    """It compiles; what it imports of layeralign is there; what it calls takes what it is given."""
    tree = ast.parse(block.text, block.where)
    known = vars(builtins).copy()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                known[name.name.partition(".")[0]] = importlib.import_module(name.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            known |= {name.asname or name.name: getattr(module, name.name) for name in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            _resolved(node, known)
        elif isinstance(node, ast.Call):
            _check_call(node, known)


def _resolved(node, known):
    """What a dotted name stands for, None where that shows only when it is run."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute):
        of = _resolved(node.value, known)
        if inspect.ismodule(of) or inspect.isclass(of):
            return getattr(of, node.attr)
    return None


def _check_call(node, known):
    called = _resolved(node.func, known)
    starred = any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords)
    if called and not starred and str(getattr(called, "__module__", "")).startswith("layeralign"):
        inspect.signature(called).bind(*node.args, **{k.arg: k.value for k in node.keywords})


def rewrite():
    """Write what the pages' run blocks print into them."""
    for name in sys.argv[1:]:
        page = Path(name).resolve()
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            shown = list(run_page(page, Path(folder)))
        lines = page.read_text().splitlines()
        for block, said in reversed(shown):
            end = lines.index("```", block.line)
            lines[block.line : end] = (
                "\n".join(line.rstrip() for line in said.splitlines()).strip("\n").splitlines()
            )
        page.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    rewrite()
