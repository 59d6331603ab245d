"""Damage of a run that no hash shows to be intact."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from layeralign._util.text import printable

DAMAGE = (
    sqlite3.DatabaseError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError,
    ValueError,
)  # fmt: skip
"""What a damaged run can raise, while it is read and in an analysis of what was read."""


def unreadable(path: Path, error: BaseException | None) -> str:
    """The sentence about a run without a hash that cannot be read."""
    why = printable(f"{type(error).__name__}: {error}", 100)
    return (
        f"run {path}: cannot be read ({why}), and it has no hash that shows it intact; restore it from a "
        "copy, or report this error if the run is intact"
    )
