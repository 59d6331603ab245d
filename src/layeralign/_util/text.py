"""Untrusted text: made safe for a terminal, split into lines, parsed as JSON or as a date, or kept once."""

from __future__ import annotations

import io
import json
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date as Date
from itertools import count
from math import isfinite
from sys import intern
from typing import Any

from layeralign.errors import LayeralignError

_KEPT = {" ", *string.punctuation}
_MOST_PARTS = {"\n": 2_000_000, ",": 30_000_000, "{": 8_000_000, "[": 8_000_000}
"""Most lines and parts of a text of data; VQA v2's annotations, the largest, have about 5 million objects."""

LONGEST_LINE = 2**24
"""Longest line of a file with a record in each line, in characters."""
_LINE_ENDS = {end: f"\\u{end:04x}" for end in (0x85, 0x2028, 0x2029)}
"""Characters that end a line for some readers and that JSON leaves as they are -> their escapes."""


def printable(text: str, limit: int | None = None) -> str:
    r"""Return `text` on one line, without control, bidirectional or surrogate characters.

    A model's name, a file's path or an error message can contain escape sequences that control the terminal.
    Each such character becomes `\\ufffd`.

    Args:
        text: any text.
        limit: maximum number of characters; longer text is cut.
    """
    line = " ".join(text.split())
    line = "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in line)
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def without_keys(text: str) -> str:
    """Return `text` with dots for credentials, queries and fragments of its addresses, which may be keys."""
    text = re.sub(r"(?i)(//|https?:/)[^\s/@'\"]*@", r"\1…@", text)  # a path has one slash of two
    # a query or fragment is optional, so that each address is read once
    address = r"(?i)(https?:/[^\s?#'\"]*)(?:([?#])[^\s'\"]+)?"
    return re.sub(address, lambda found: found[1] + (f"{found[2]}…" if found[2] else ""), text)


def has_lone_surrogate(text: str) -> bool:
    """Return whether the text contains a lone surrogate, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def redacted(text: str, limit: int | None = None) -> str:
    """Return `printable` text with dots for letters, digits and signs: its shape without its content."""
    return "".join(c if c in _KEPT else "·" for c in printable(text, limit))


def check_parts(text: bytes, where: str) -> None:
    """Refuse JSON or CSV of too many parts: an empty object takes 40 times the memory of its text.

    Args:
        text: the text, in UTF-8.
        where: the text's origin, for the message.

    Raises:
        LayeralignError: the text has too many lines, commas or brackets.
    """
    for letter, most in _MOST_PARTS.items():
        if text.count(letter.encode()) > most:
            what = "lines" if letter == "\n" else f"of the character {letter}"
            raise LayeralignError(f"{where}: has more than {most:,} {what}; split it")


def json_of(text: str, where: str, expected: str = "") -> Any:
    """Parse untrusted JSON; unlike Python's parser, refuse duplicate fields, NaN and infinities, also 1e999.

    Args:
        text: a whole document.
        where: the document's origin, for the message.
        expected: the end of the message for invalid JSON.

    Raises:
        LayeralignError: the text is not JSON, or has one of these.
    """

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise LayeralignError(f"{where}: field {printable(repr(twice), 60)} occurs twice")
        return found

    def constant(name: str) -> float:
        raise LayeralignError(f"{where}: {name} is not a JSON number")

    def number(digits: str) -> float:
        if not isfinite(found := float(digits)):  # 1e999 is valid JSON, and infinite in Python
            raise LayeralignError(f"{where}: {printable(digits, 60)} is too large for a number")
        return found

    try:
        return json.loads(text, object_pairs_hook=fields, parse_constant=constant, parse_float=number)
    except (ValueError, RecursionError) as error:
        raise LayeralignError(f"{where}: is not valid JSON ({error}){expected}") from error


def printable_lines(text: str, limit: int) -> str:
    """Return `text` with its lines and tabs, without the other characters that `printable` replaces.

    Args:
        text: any text.
        limit: maximum number of characters; the result names the number of omitted characters.
    """
    shown, rest = text[:limit], len(text) - limit
    lines = "".join(
        c if c in "\n\t" else "\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in shown
    )
    return lines if rest <= 0 else f"{lines}\n[… {rest:,} more characters]"


def check_date(date: str) -> None:
    """Refuse an invalid date.

    Raises:
        LayeralignError: the text is not of the form `2026-11-28`.
    """
    try:
        Date.fromisoformat(date)
    except ValueError as error:
        raise LayeralignError(f"date {date!r}: expected a date as 2026-11-28") from error


def large(n: int, giga: str = "B") -> str:
    """Return a number with three digits or more and its unit: `126.35 M`; `giga` is the unit of 10^9."""
    for size, unit in ((1e12, "T"), (1e9, giga), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.2f} {unit}"
    return str(n)


def duration(seconds: float) -> str:
    """Return a time in seconds, minutes, hours or days."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def sharing(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Yield rows of a database with one object for all equal texts.

    Several queries read the ids of the same cases, and a comparison reads them of two runs.
    """
    for row in rows:
        yield tuple(intern(value) if isinstance(value, str) else value for value in row)


def lines_of(content: bytes, what: str, ends: str | None = None) -> Iterator[tuple[int, str]]:
    """Yield number, from 1, and text of each line that is not blank, decoded one after another.

    A text with an emoji takes four bytes for each character: a file of 256 MiB would take 1 GiB at once.

    Args:
        content: UTF-8; a byte order mark is dropped.
        what: the content's origin, for messages.
        ends: what ends a line, as `newline` of `open`.

    Raises:
        LayeralignError: it is not UTF-8, or a line is longer than `LONGEST_LINE`.
    """
    stream = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline=ends)
    for number in count(1):
        try:
            line = stream.readline(LONGEST_LINE + 1)
        except UnicodeDecodeError as error:
            raise LayeralignError(
                f"{what}: cannot be read as UTF-8 text ({error.reason}, at line {number} or soon after it)"
            ) from error
        if not line:
            return
        if len(line) > LONGEST_LINE:
            raise LayeralignError(f"{what}:{number}: is longer than {LONGEST_LINE:,} characters, the limit")
        if line.strip():
            yield number, line.removesuffix("\n")


def json_line(row: Any) -> str:
    r"""Return one line of JSON, in which no character ends a line for any reader, as U+2028 would."""
    return json.dumps(row, ensure_ascii=False).translate(_LINE_ENDS) + "\n"
