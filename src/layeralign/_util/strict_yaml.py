"""YAML as plain data: strictly, without aliases, merges and tags; or another program's, within limits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from layeralign._util.text import has_lone_surrogate, printable
from layeralign.errors import LayeralignError

MOST_BYTES = 100_000
DEEPEST = 20
"""Larger or deeper files are refused: people do not write them, and PyYAML can take minutes to read them."""
MOST_PARTS = 100_000
"""Parts of a document of another program: a few aliases can stand for billions."""
_LONGEST = 1000
"""Letters of a number: Python writes none of more than 4,300 digits as text."""
_TAG = "tag:yaml.org,2002:"
_PLAIN = {f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")}

Place = tuple[str | int, ...]
"""A place in a document: keys, and list positions from 0."""


def read(file: Path, what: str) -> tuple[Any, dict[Place, int]]:
    """Read a YAML file; return its data, and the line where each part begins.

    Args:
        file: any readable file, including a pipe.
        what: the file's role for the user, such as `policy FILE`, for messages.

    Raises:
        LayeralignError: the file cannot be read, is not YAML, or is too large or too deep. Also if it has an
            alias, a tag, a merge, a key that is not plain text or occurs twice, or an integer that is not
            decimal.
    """
    content, lines = _content(file, what), dict[Place, int]()
    with _said(what):
        text = content.decode()
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise LayeralignError(f"{what}, {_line(event)}: is nested more than {DEEPEST} deep")
            if isinstance(event, yaml.AliasEvent):
                raise LayeralignError(f"{what}, {_line(event)}: has an alias (*); write it out")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None:
            _walk(root, (), lines, what)
        found = yaml.safe_load(text)
    return found, lines


def documents(file: Path, what: str) -> list[Any]:
    """Read the documents of another program's YAML file; aliases, merges and dates are allowed.

    Args:
        file: any readable file.
        what: the file's role for the user, for messages.

    Raises:
        LayeralignError: the file cannot be read, is not YAML, or is too large, also after its aliases are
            written out. Also if it has a key twice.
    """
    content, found = _content(file, what), []
    with _said(what):
        loader = yaml.SafeLoader(content.decode())
        while loader.check_node():
            node = loader.get_node()
            _written_out(node, what, {})
            found.append(loader.construct_document(node))
    return found


def _written_out(node: Any, what: str, sizes: dict[int, int]) -> int:
    """Return the number of parts of a node with its aliases written out; sizes of parts are kept by id."""
    if id(node) not in sizes:
        sizes[id(node)] = MOST_PARTS + 1  # for a node that contains itself
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else []
        seen = Counter(key.value for key in parts[::2] if isinstance(key, yaml.ScalarNode))
        if seen and max(seen.values()) > 1:
            twice = printable(max(seen, key=seen.__getitem__), 60)
            raise LayeralignError(f"{what}, {_line(node)}: has {twice!r} twice; remove one of them")
        if isinstance(node, yaml.SequenceNode):
            parts = node.value
        if node.tag == f"{_TAG}int" and len(node.value) > _LONGEST:
            raise LayeralignError(f"{what}, {_line(node)}: has a number of more than {_LONGEST} digits")
        sizes[id(node)] = 1 + sum(_written_out(part, what, sizes) for part in parts)
    if sizes[id(node)] > MOST_PARTS:
        raise LayeralignError(
            f"{what}, {_line(node)}: has more than {MOST_PARTS} parts with its aliases (*) written out"
        )
    return sizes[id(node)]


def _content(file: Path, what: str) -> bytes:
    try:
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        why = error.strerror if isinstance(error, OSError) else error
        raise LayeralignError(f"{what}: cannot be read ({why})") from error
    if len(content) > MOST_BYTES:
        raise LayeralignError(f"{what}: is larger than {MOST_BYTES} bytes")
    return content


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Say in one sentence that a text is not YAML."""
    try:
        yield
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error)
        raise LayeralignError(f"{what}{where}: is not valid YAML ({printable(reason, 120)})") from error
    except (ValueError, OverflowError, RecursionError, LookupError, AttributeError) as error:  # PyYAML's own
        raise LayeralignError(f"{what}: is not valid YAML ({printable(str(error), 120)})") from error


def _walk(node: yaml.Node, at: Place, lines: dict[Place, int], what: str) -> None:
    lines[at] = node.start_mark.line + 1
    if node.tag not in _PLAIN:
        kind = printable(node.tag.removeprefix(_TAG), 60)
        raise LayeralignError(f"{what}, {_line(node)}: has a {kind}; expected texts, numbers, lists and keys")
    if node.tag == f"{_TAG}int" and not re.fullmatch(r"[+-]?(0|[1-9]\d*)", node.value):
        raise LayeralignError(
            f"{what}, {_line(node)}: {printable(node.value, 60)} is {yaml.safe_load(node.value)} in YAML; "
            "write that, or put it in quotes"
        )
    if isinstance(node, yaml.ScalarNode) and has_lone_surrogate(node.value):
        raise LayeralignError(f"{what}, {_line(node)}: holds half a character (a lone surrogate)")
    if isinstance(node, yaml.SequenceNode):
        for number, part in enumerate(node.value):
            _walk(part, (*at, number), lines, what)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag != f"{_TAG}str":
                name = printable(key.value, 60) if isinstance(key.value, str) else "that is no word"
                raise LayeralignError(f"{what}, {_line(key)}: has a key {name}; expected plain text")
            if (*at, key.value) in lines:
                raise LayeralignError(f"{what}, {_line(key)}: has {printable(key.value, 60)!r} twice")
            _walk(value, (*at, key.value), lines, what)
            lines[*at, key.value] = key.start_mark.line + 1


def _line(of: Any) -> str:
    return f"line {of.start_mark.line + 1}"
