"""Cases from a JSONL file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from layeralign.cases import pictures
from layeralign.cases.case import KINDS, Case
from layeralign.errors import LayeralignError

_FIELDS = ("id", "prompt", "kind", "image", "category", "reference")


def read(file: Path, limit: int | None = None) -> list[Case]:
    """Read the first `limit` cases of a JSONL file (all by default), each line one object.

    Fields: `id`, `prompt`, and `kind` (harmful, benign or vqa) must be there; `image` (path
    relative to the file), `category` and `reference` may be. Further fields are ignored.
    Every line is checked, and every picture of the cases that are returned is opened once.

    Raises:
        LayeralignError: names the file, the line and the field that is wrong.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LayeralignError(f"cases {file}: cannot be read as UTF-8 text ({error})") from error
    rows: list[tuple[str, dict[str, Any]]] = []
    seen: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        row = _row(line, where)
        if row["id"] in seen:
            raise LayeralignError(f"{where}: id {row['id']!r} is already used in {seen[row['id']]}")
        seen[row["id"]] = where
        rows.append((where, row))
    if not rows:
        raise LayeralignError(f"cases {file}: holds no case; expected one JSON object per line")
    checked: dict[str, pictures.FilePicture] = {}
    return [_case(row, file.parent, where, checked) for where, row in rows[:limit]]


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LayeralignError(f"{where}: is not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise LayeralignError(f"{where}: expected a JSON object, found {type(row).__name__}")
    for name in ("id", "prompt", "kind"):
        if name not in row:
            raise LayeralignError(f"{where}: field {name!r} is missing")
    for name in _FIELDS:
        if (
            name in row
            and not isinstance(row[name], str)
            and (row[name] is not None or name in ("id", "prompt", "kind"))
        ):
            raise LayeralignError(f"{where}: field {name!r} is {row[name]!r}; expected text")
    for name in _FIELDS:
        if any("\ud800" <= letter <= "\udfff" for letter in row.get(name) or ""):
            raise LayeralignError(f"{where}: field {name!r} holds half a character (a lone surrogate)")
    for name in ("id", "prompt"):
        if not row[name].strip():
            raise LayeralignError(f"{where}: field {name!r} is empty")
    if row["kind"] not in KINDS:
        raise LayeralignError(f"{where}: field 'kind' is {row['kind']!r}; expected {', '.join(KINDS)}")
    return row


def _case(row: dict[str, Any], folder: Path, where: str, checked: dict[str, pictures.FilePicture]) -> Case:
    name = row.get("image")
    if name is not None and name not in checked:
        checked[name] = pictures.check(folder, name, where)
    return Case(
        id=row["id"],
        prompt=row["prompt"],
        kind=row["kind"],
        picture=checked[name] if name is not None else None,
        category=row.get("category") or "",
        reference=row.get("reference"),
    )
