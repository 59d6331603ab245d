"""Finding a benchmark's files in the user's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layeralign.cases.readers.benchmark import Benchmark
from layeralign.errors import LayeralignError

_FEW = 4
"""Most file names in a message."""


def find(folder: Path, names: Sequence[str], benchmark: Benchmark) -> Path:
    """The first of these files that exists; names are relative to the folder.

    Raises:
        LayeralignError: None of them exists; the message says what to download and from where.
    """
    found = search(folder, names)
    if found is None:
        others = f" (nor {', '.join(names[1:4])}{', …' if len(names) > _FEW else ''})" if names[1:] else ""
        raise LayeralignError(
            f"{folder / names[0]}: no such file{others}; expected {benchmark.title} as published; "
            f"download it from {benchmark.source}"
        )
    return found


def search(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of these files that exists; None if none does."""
    return next((folder / name for name in names if _is_file(folder / name)), None)


def find_folder(folder: Path, names: Sequence[str], what: str, fix: str) -> Path:
    """The first of these folders that exists.

    Raises:
        LayeralignError: None of them exists; `what` and `fix` go into the message.
    """
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise LayeralignError(f"{folder}: has no folder {' or '.join(names)} with {what}; {fix}")


def either(folder: Path, names: Sequence[str]) -> str:
    """The name of the first of these folders that exists; the first name if none does."""
    return next((name for name in names if _is_folder(folder / name)), names[0])


def _is_folder(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except OSError:
        return False


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:
        return False
