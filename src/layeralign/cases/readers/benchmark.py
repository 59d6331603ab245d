"""Description of a public benchmark: source, licence, files and reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from layeralign.cases.case import Case, Kind
from layeralign.cases.origins import Origin

Reader = Callable[[Path, int | None, int], list[Case]]
"""Reads cases: folder, limit (None for all) and seed -> cases."""
Lister = Callable[[Path, int | None, int], list[str]]
"""Lists pictures: folder with the texts, limit and seed -> paths of the cases' pictures in that folder."""


@dataclass(frozen=True)
class Benchmark:
    """A public benchmark; layeralign ships none of its text.

    Attributes:
        name: Name on the command line; the ids of its cases start with it.
        title: The authors' name for it.
        kind: Kind of all its cases, or `mixed`.
        source: Address where users get it.
        licence: The licence that the publisher states.
        revision: The commit that is downloaded and whose format the reader expects; None if none is
            documented. The user's own copy is not compared with it.
        files: Files that the folder must contain, in the published layout.
        about: Description, and what the user has to download by hand.
        read: The reader.
        origin: Where it is downloaded from; None if all files are the user's own.
        texts: Files that are always downloaded: path in the reader's layout -> largest size in MiB.
        pictures: Lists the pictures that the origin may have; None if it has none or none are needed.
        by_hand: What the user has to download by hand, in a few words; empty if nothing.
        place: Name of its cache folder, for benchmarks that share one; by default its own name.
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
