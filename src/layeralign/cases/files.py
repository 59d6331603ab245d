"""Reading and writing cases as a JSONL file, with the pictures in a folder next to it."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from layeralign._util.files import atomic, read_given, read_regular
from layeralign._util.text import check_parts, json_line, json_of, lines_of, printable
from layeralign._util.validation import Filled, Record, Text, validated
from layeralign.cases import pictures
from layeralign.cases.case import KINDS, Case, Kind, Picture
from layeralign.errors import LayeralignError

MAX_BYTES = 256 * 2**20
"""Largest case file, in bytes."""
MAX_COLUMNS = 1_000
"""Most columns of a table: each row has an entry for each."""


def read(file: Path, limit: int | None = None) -> list[Case]:
    """Read the first `limit` cases of a file (all by default): JSONL, one object per line, or a CSV table.

    The fields `id`, `prompt` and `kind` (harmful, benign or vqa) are required. Optional fields are `image`
    (a path relative to the file), `category`, `reference` and `answers` (a list of strings for the VQA
    judge, not in CSV). Fields that start with `_` are notes and are ignored. An empty cell of a table is a
    missing field. `pair` is a text that one harmful and one benign case share. Every line is checked, and
    every picture of the returned cases is decoded once.

    Raises:
        LayeralignError: The file is invalid; the message names the file, the line and the field.
    """
    content = read_given(file, MAX_BYTES, "cases")
    check_parts(content, f"cases {file}")
    table = file.suffix.lower() == ".csv"
    rows = checked(_table(content, file) if table else _objects(content, file))
    if not rows:
        expected = "a header and a row per case" if table else "one JSON object per line"
        raise LayeralignError(f"cases {file}: has no cases; expected {expected}")
    opened: dict[str, pictures.FilePicture] = {}
    return [case(row, _picture(row.image, file.parent, where, opened)) for where, row in rows[:limit]]


def _objects(content: bytes, file: Path) -> Iterator[tuple[str, Any]]:
    """Yield place and content of each line of a JSONL file."""
    for number, line in lines_of(content, f"cases {file}"):
        yield f"{file}:{number}", json_of(line, f"{file}:{number}", _EXPECTED)


def _table(content: bytes, file: Path) -> Iterator[tuple[str, Any]]:
    """Yield place and content of each row of a CSV table whose header names the fields."""
    stream = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig")  # decoded part by part
    reader = csv.DictReader(stream, strict=True)
    try:
        times = Counter(columns := reader.fieldnames or [])
        if len(columns) > MAX_COLUMNS:
            raise LayeralignError(f"{file}:1: has {len(columns):,} columns; the limit is {MAX_COLUMNS:,}")
        if twice := [name for name, n in times.items() if n > 1]:
            raise LayeralignError(
                f"{file}:1: column {printable(repr(twice[0]), 60)} appears twice; expected each column once"
            )
        for row in reader:
            where = f"{file}:{reader.line_num}"
            if None in row:
                raise LayeralignError(f"{where}: has more cells than the header; quote a text with a comma")
            yield where, {name: cell for name, cell in row.items() if cell}
    except UnicodeDecodeError as error:
        raise LayeralignError(f"cases {file}: cannot be read as UTF-8 text ({error.reason})") from error
    except csv.Error as error:
        raise LayeralignError(f"{file}:{reader.line_num}: is not valid CSV ({error})") from error


_EXPECTED = "; expected JSON Lines: one object per line with id, prompt and kind"


class Row(Record):
    """A line of a case file, or a row of a table of cases."""

    id: Filled = Field(description="text")
    prompt: Filled = Field(description="text")
    kind: Kind = Field(description=", ".join(KINDS))
    image: Text | None = Field(None, description="text")
    category: Text | None = Field(None, description="text")
    reference: Text | None = Field(None, description="text")
    answers: Annotated[list[Text], Field(min_length=1)] | None = Field(None, description="a list of strings")
    pair: Filled | None = Field(None, description="text")
    rule: Literal["yes-no", "choice"] | None = Field(None, description="yes-no or choice")
    options: Annotated[list[Text], Field(min_length=2, max_length=26)] | None = Field(
        None, description="a list of 2 to 26 strings"
    )


_FACTS = ("answers", "pair", "rule", "options")
"""Fields that are facts of the case; the only facts that `write` keeps."""


def checked(contents: Iterable[tuple[str, Any]]) -> list[tuple[str, Row]]:
    """Validate rows, each with its place for messages.

    Raises:
        LayeralignError: a row is invalid, or ids or spellings of two rows conflict; the message names a row.
    """
    rows: list[tuple[str, Row]] = []
    seen: dict[str, str] = {}
    spelt: dict[str, tuple[str, str]] = {}
    paired: dict[tuple[str, str], str] = {}
    for where, content in contents:
        read = content
        if isinstance(content, dict):
            read = {name: value for name, value in content.items() if not name.startswith("_")}
        row = validated(Row, read, where, extra="; rename it, or start it with _ to keep it as a note")
        if row.id in seen:
            raise LayeralignError(f"{where}: id {row.id!r} is already used in {seen[row.id]}")
        seen[row.id] = where
        _check_spelling((row.category or "").strip(), where, spelt)
        _check_pair(row, where, paired)
        if row.rule == "choice" and row.options is None:
            raise LayeralignError(f"{where}: field 'options' is missing; expected the options of the choice")
        rows.append((where, row))
    return rows


def _check_spelling(category: str, where: str, spelt: dict[str, tuple[str, str]]) -> None:
    """Refuse a second spelling of a category, which would split its cases."""
    alike = re.sub(r"[\s_-]", "", category).casefold()
    first, there = spelt.setdefault(alike, (category, where)) if category else (category, where)
    if first != category:
        raise LayeralignError(
            f"{where}: field 'category' is {printable(repr(category), 60)}, but {there} spells it "
            f"{printable(repr(first), 60)}; use one spelling"
        )


def _check_pair(row: Row, where: str, paired: dict[tuple[str, str], str]) -> None:
    """Refuse a pair that has anything but one harmful and one benign case."""
    if row.pair is None:
        return
    pair = f"{where}: field 'pair' is {printable(repr(row.pair), 60)}"
    if row.kind == "vqa":
        raise LayeralignError(f"{pair} in a case of kind vqa; expected kind harmful or benign")
    first = paired.setdefault((row.pair, row.kind), where)
    if first != where:
        raise LayeralignError(
            f"{pair}, whose {row.kind} case is in {first}; expected one harmful and one benign case"
        )


def _picture(
    name: str | None, folder: Path, where: str, opened: dict[str, pictures.FilePicture]
) -> pictures.FilePicture | None:
    if name is not None and name not in opened:
        opened[name] = pictures.check(folder, name, where)
    return None if name is None else opened[name]


def case(row: Row, picture: Picture | None) -> Case:
    """Make the case of a row."""
    return Case(
        id=row.id,
        prompt=row.prompt,
        kind=row.kind,
        picture=picture,
        category=row.category or "",
        reference=row.reference,
        facts={name: value for name in _FACTS if (value := getattr(row, name)) is not None},
    )


def write(cases: Sequence[Case], file: Path) -> None:
    """Write cases to a JSONL file that `read` can read.

    Ids, prompts, kinds, categories, references and pictures are kept; of the facts, only those that are
    fields of a case file. Each picture is copied once, into a folder next to the file: `cases.pictures` for
    `cases.jsonl`. File and folder are readable by their owner only, since prompts may be harmful.

    Raises:
        LayeralignError: The file or the folder exists, or a picture is not a file or has changed. Nothing is
            left behind.
    """
    beside = file.with_name(f"{file.stem}.pictures")
    for there in (file, beside):
        if there.exists():
            raise LayeralignError(f"out {there}: already exists; remove it or name another file")
    with ExitStack() as stack, atomic(file, private=True) as draft:
        pile = draft.with_name(f"{draft.name}.pictures")
        pile.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, pile, ignore_errors=True)
        with draft.open("w", encoding="utf-8") as stream:
            stream.writelines(json_line(_written(case, pile, beside.name)) for case in cases)
        if any(pile.iterdir()):
            pile.replace(beside)
            stack.push(lambda failed, *_: shutil.rmtree(beside, ignore_errors=True) if failed else None)


def _written(case: Case, pile: Path, beside: str) -> dict[str, Any]:
    row: dict[str, Any] = {"id": case.id, "prompt": case.prompt, "kind": case.kind}
    if case.picture is not None:
        row["image"] = f"{beside}/{_copied(case.picture, pile, case.id)}"
    optional = {
        "category": case.category or None,
        "reference": case.reference,
        **{name: case.facts.get(name) for name in _FACTS},
    }
    return row | {name: value for name, value in optional.items() if value is not None}


def _copied(picture: Picture, pile: Path, id: str) -> str:
    """Copy a picture and return the copy's name, which is its hash: equal pictures are copied once."""
    if isinstance(picture, pictures.HeldPicture):
        raise LayeralignError(f"case {id}: its picture is in memory, not a file; save it and give its path")
    if not picture.path:
        raise LayeralignError(
            f"case {id}: its picture is generated, not a file; refer to such cases by their benchmark's name"
        )
    name = picture.sha256[:32] + Path(picture.path).suffix.lower()
    if not (pile / name).exists():
        try:
            content = read_regular(Path(picture.path), pictures.MAX_BYTES)
        except (OSError, ValueError) as error:
            raise LayeralignError(f"image {picture.path}: can no longer be read ({error})") from error
        if hashlib.sha256(content).hexdigest() != picture.sha256:
            raise LayeralignError(
                f"image {picture.path}: has changed since the cases were read; run the command again"
            )
        (pile / name).touch(mode=0o600)
        (pile / name).write_bytes(content)
    return name
