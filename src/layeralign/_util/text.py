"""Untrusted text: made safe for a terminal, or read as JSON or as a date."""

from __future__ import annotations

import json
import string
import unicodedata
from datetime import date as Date
from typing import Any

from layeralign.errors import LayeralignError

_KEPT = {" ", *string.punctuation}


def printable(text: str, limit: int | None = None) -> str:
    r"""`text` on one line, without control, bidirectional or surrogate characters.

    A model's name, a file's path or an error's wording can hold escape sequences that would
    drive the terminal; each such character becomes `\\ufffd`.

    Args:
        text: anything.
        limit: cut to so many characters.
    """
    line = " ".join(text.split())
    line = "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in line)
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def has_lone_surrogate(text: str) -> bool:
    """Whether the text contains half a character (a lone surrogate), which UTF-8 cannot encode."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def redacted(text: str, limit: int | None = None) -> str:
    """`printable`, with every letter, digit and sign as a dot: its shape can be seen, and nothing be read."""
    return "".join(c if c in _KEPT else "·" for c in printable(text, limit))


def json_of(text: str, where: str, expected: str = "") -> Any:
    """JSON of strangers, without what Python's reader lets slip: a field twice, NaN, infinities.

    Args:
        text: a whole document.
        where: it is from, for the message.
        expected: end of the message where it is no JSON.

    Raises:
        LayeralignError: it is no JSON, or one of these.
    """

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = next(name for name in found if [key for key, _ in pairs].count(name) > 1)
            raise LayeralignError(f"{where}: field {twice!r} occurs twice")
        return found

    def number(name: str) -> float:
        raise LayeralignError(f"{where}: {name} is not a JSON number")

    try:
        return json.loads(text, object_pairs_hook=fields, parse_constant=number)
    except (ValueError, RecursionError) as error:
        raise LayeralignError(f"{where}: is not valid JSON ({error}){expected}") from error


def printable_lines(text: str, limit: int) -> str:
    """`text` with its lines and tabs, but without any other character that `printable` takes out.

    Args:
        text: anything.
        limit: where to cut it, in characters; how many were cut off is said.
    """
    shown, rest = text[:limit], len(text) - limit
    lines = "".join(
        c if c in "\n\t" else "\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in shown
    )
    return lines if rest <= 0 else f"{lines}\n[… {rest:,} more characters]"


def check_date(date: str) -> None:
    """Refuse what is no date.

    Raises:
        LayeralignError: it is not of the form `2026-11-28`.
    """
    try:
        Date.fromisoformat(date)
    except ValueError as error:
        raise LayeralignError(f"date {date!r}: expected a date as 2026-11-28") from error
