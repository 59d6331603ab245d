"""What a training was made from, on disk: two trainings are the same if their records are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layeralign._util import files
from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.vlm.identity import versions


def write(file: Path, made: Mapping[str, Any]) -> dict[str, Any]:
    """Write a record, with the versions of the libraries; returns it."""
    record = {**made, "versions": versions()}
    files.write_json(file, record)
    return record


def read_same(file: Path, made: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record in `file`, which must be of the same training; None without a file.

    Raises:
        LayeralignError: the record cannot be read, or is of another training.
    """
    if not file.is_file():
        return None
    try:
        record: dict[str, Any] = dict(json.loads(file.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise LayeralignError(
            f"out {file.parent}: {file.name} is no record of a training; use a new folder"
        ) from error
    compare(file.parent, record, made)
    return record


def compare(out: Path, found: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Refuse to mix two trainings in `out`; the name of the model alone may differ.

    Raises:
        LayeralignError: the training that was `found` was not made from what this one is `made` from.
    """
    for key, now in made.items():
        was = found.get(key)
        if was == now or key == "model":
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            inner = min(k for k in {*was, *now} if was.get(k) != now.get(k))
            key, was, now = f"{key}.{inner}", was.get(inner), now.get(inner)  # noqa: PLW2901
        old, new = (printable(json.dumps(value), 60) for value in (was, now))
        raise LayeralignError(
            f"out {out}: holds another training, with {key} = {old}, and this command has {new}; "
            "use another --out, or the same settings"
        )
