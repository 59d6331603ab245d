"""Text of strangers, made fit for a terminal."""

from __future__ import annotations

import string
import unicodedata

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


def redacted(text: str, limit: int | None = None) -> str:
    """`printable`, with every letter, digit and sign as a dot: its shape can be seen, and nothing be read."""
    return "".join(c if c in _KEPT else "·" for c in printable(text, limit))
