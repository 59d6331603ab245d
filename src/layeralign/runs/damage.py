"""Damage of a run's file, and of a run that no hash shows to be intact."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from layeralign._util.text import printable
from layeralign.errors import LayeralignError

DAMAGE = (
    sqlite3.DatabaseError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError,
    ValueError,
)  # fmt: skip
"""What a damaged run can raise, while it is read and in an analysis of what was read."""


def check(path: Path, db: sqlite3.Connection) -> None:
    """Read the whole structure of the database of the run `path`.

    Raises:
        LayeralignError: It is damaged; the message has SQLite's first complaint.
    """
    try:
        found = str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])
    except sqlite3.DatabaseError as error:
        found = str(error)
    if found != "ok":
        why = printable(found, 100)
        raise LayeralignError(f"run {path}: is damaged ({why}); restore it from a copy, or scan again")


def unreadable(path: Path, error: BaseException | None) -> str:
    """The sentence about a run without a hash that cannot be read."""
    why = printable(f"{type(error).__name__}: {error}", 100)
    return (
        f"run {path}: cannot be read ({why}), and it has no hash that shows it intact; restore it from a "
        "copy, or report this error if the run is intact"
    )
