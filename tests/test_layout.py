"""The README's layout against the imports: rooms that exist, and imports that point down."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "layeralign"
LONGEST, MOST_FILES = 350, 12
LONGER = {"vlm/vlm.py": 805, "runs/store.py": 525, "testing.py": 480}
"""One class each, which is easier to read in one file (docs/design.md)."""


def floors():
    """Each line of the README's layout: the names in it (rooms and single files), top to bottom."""
    block = re.search(r"```text\nsrc/layeralign/\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    lines = []
    for line in block.splitlines():
        room, *words = line.split()
        lines.append([room.split("/")[0], *(re.findall(r"\b(\w+\.py)\b", " ".join(words)))])
    return [[name.removesuffix(".py") for name in names] for names in lines]


def imports(file):
    """The modules of layeralign that a file imports, as dotted paths behind the package's name."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "layeralign":
            inside = node.module.split(".")[1:]
            yield from (inside and [".".join(inside)]) or [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (a.name.partition(".")[2] for a in node.names if a.name.startswith("layeralign."))


def files():
    return [file for file in SOURCE.rglob("*.py") if file.stem not in ("__init__", "__main__")]


def test_every_room_and_file_is_in_the_layout_once():
    named = [name for names in floors() for name in names]
    there = {
        path.stem for path in SOURCE.iterdir() if path.suffix == ".py" and not path.stem.startswith("__")
    }
    there |= {path.name for path in SOURCE.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert sorted(named) == sorted(there)


@pytest.mark.slow
def test_imports_point_down():
    """From a room to itself or to a line below its own; `cli/`'s studies may use the API of the line below."""
    floor = {name: number for number, names in enumerate(floors()) for name in names}
    wrong = [
        f"{file.relative_to(SOURCE)} imports {module}"
        for file in files()
        for module in imports(file)
        if (room := file.relative_to(SOURCE).parts[0].removesuffix(".py"))
        and (other := module.split(".")[0]) in floor
        and other != room
        and floor[other] <= floor[room]
        and not (room == "cli" and other in floors()[0])
    ]
    assert wrong == []


@pytest.mark.slow
def test_no_module_imports_itself_in_a_circle():
    """Within a room, too; imports inside functions count."""
    graph = {}
    for file in files():
        name = ".".join(file.relative_to(SOURCE).with_suffix("").parts)
        graph[name] = set(imports(file))
    done, path = set(), []

    def visit(name):
        if name in path:
            pytest.fail(" → ".join([*path[path.index(name) :], name]))
        if name in done or name not in graph:
            return
        path.append(name)
        for other in graph[name]:
            visit(other)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)


def test_files_and_folders_stay_small():
    lines = {str(file.relative_to(SOURCE)): len(file.read_text().splitlines()) for file in files()}
    long = {file: n for file, n in lines.items() if n > LONGER.get(file, LONGEST)}
    full = {
        str(folder.relative_to(SOURCE))
        for folder in [SOURCE, *(path for path in SOURCE.rglob("*") if path.is_dir())]
        if len([file for file in folder.glob("*.py") if not file.stem.startswith("__")]) > MOST_FILES
    }
    assert (long, full) == ({}, set())
