"""What is known of a public benchmark: where it is had, under which licence, and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from layeralign.cases.case import Case, Kind

Reader = Callable[[Path, int | None, int], list[Case]]
"""Folder, limit (None for all) and seed to cases."""


@dataclass(frozen=True)
class Benchmark:
    """One public benchmark; layeralign ships none of its text and fetches none of it.

    Attributes:
        name: how the command line calls it; ids of its cases start with it.
        title: how its authors call it.
        kind: of all its cases, or `mixed`.
        source: where the user gets it.
        licence: as its publisher states it.
        revision: the commit that the format was taken from; None where none is documented. The
            user's copy is not compared with it.
        files: what the folder has to hold, in the layout in which it is published.
        about: what it is, and what a user has to do by hand.
        read: the reader.
    """

    name: str
    title: str
    kind: Kind | Literal["mixed"]
    source: str
    licence: str
    revision: str | None
    files: tuple[str, ...]
    about: str
    read: Reader
