"""Preference pairs in HH-RLHF's form."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from layeralign._util.files import read_given
from layeralign._util.text import has_lone_surrogate, json_of, lines_of, printable
from layeralign.cases.dialogue import ASSISTANT
from layeralign.errors import LayeralignError

MAX_BYTES = 512 * 2**20
"""Largest file of pairs, in bytes."""


@dataclass(frozen=True)
class Pair:
    """Two dialogues that differ in their last answer; `prompt` is their common part before it."""

    prompt: str
    chosen: str
    rejected: str


def read_pairs(file: Path) -> tuple[list[Pair], int]:
    """Read JSONL in HH-RLHF's form; drop and count the lines with two identical dialogues.

    Returns:
        The pairs, and the number of dropped lines.

    Raises:
        LayeralignError: the file cannot be read or is invalid; the message names the file, the line and the
            field.
    """
    content = read_given(file, MAX_BYTES, "pairs")
    read = [_pair(line, f"{file}:{number}") for number, line in lines_of(content, f"pairs {file}")]
    differ = [pair for pair in read if pair.chosen != pair.rejected]
    if not differ:
        raise LayeralignError(
            f"pairs {file}: holds no pair of different dialogues; expected one JSON object per line"
        )
    return differ, len(read) - len(differ)


def _pair(line: str, where: str) -> Pair:
    row = json_of(line, where)
    if not isinstance(row, dict):
        raise LayeralignError(f"{where}: expected a JSON object, found {type(row).__name__}")
    for name in ("chosen", "rejected"):
        if name not in row:
            raise LayeralignError(f"{where}: field {name!r} is missing")
        if not isinstance(row[name], str):
            raise LayeralignError(
                f"{where}: field {name!r} is {printable(repr(row[name]), 60)}; expected text"
            )
        if has_lone_surrogate(row[name]):
            raise LayeralignError(f"{where}: field {name!r} holds half a character (a lone surrogate)")
        if ASSISTANT not in row[name]:
            raise LayeralignError(
                f"{where}: field {name!r} has no answer; expected a dialogue of turns that begin with "
                r"'\n\nHuman:' and '\n\nAssistant:'"
            )
    shared = os.path.commonprefix([row["chosen"], row["rejected"]])  # noqa: RUF071 - of texts
    prompt, turn, _ = shared.rpartition(ASSISTANT)
    if not turn:
        raise LayeralignError(
            f"{where}: 'chosen' and 'rejected' differ before their first answer; expected the same request "
            "with two answers"
        )
    return Pair(prompt, row["chosen"], row["rejected"])


def split(pairs: Sequence[Pair], held_out: float) -> tuple[list[Pair], list[Pair]]:
    """Return training pairs and held-out pairs; all pairs of one prompt are on the same side."""
    train: list[Pair] = []
    test: list[Pair] = []
    for pair in pairs:
        share = int.from_bytes(hashlib.sha256(pair.prompt.encode(errors="replace")).digest()[:4]) / 2**32
        (test if share < held_out else train).append(pair)
    return train, test
