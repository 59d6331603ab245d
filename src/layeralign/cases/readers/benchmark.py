"""What is known of a public benchmark: where it is had, under which licence, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from layeralign.cases.case import Case, Kind
from layeralign.cases.origins import Origin

Reader = Callable[[Path, int | None, int], list[Case]]
"""Folder, limit (None for all) and seed to cases."""
Lister = Callable[[Path, int | None, int], list[str]]
"""Folder with the texts, limit and seed to the paths, below it, of the pictures that those cases show."""


@dataclass(frozen=True)
class Benchmark:
    """One public benchmark; layeralign ships none of its text.

    Attributes:
        name: how the command line calls it; ids of its cases start with it.
        title: how its authors call it.
        kind: of all its cases, or `mixed`.
        source: where the user gets it.
        licence: as its publisher states it.
        revision: the commit that is fetched, and that the format was taken from; None where none is
            documented. A copy of the user's own is not compared with it.
        files: what the folder has to hold, in the layout in which it is published.
        about: what it is, and what a user has to do by hand.
        read: the reader.
        origin: where it is fetched from by its name; None where all of it is the user's own.
        texts: what is always fetched: paths in the layout that the reader wants, to their largest MiB.
        pictures: lists the pictures that the origin may have; None where it has none, or none are needed.
        by_hand: what the user has to get, in a few words; empty where all is fetched.
        place: the name of its folder in the cache, for benchmarks that share one; its own name by default.
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
    origin: Origin | None = None
    texts: Mapping[str, int] = field(default_factory=dict)
    pictures: Lister | None = None
    by_hand: str = ""
    place: str = ""
