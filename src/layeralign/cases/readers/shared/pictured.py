"""Cases of a benchmark whose rows name their pictures; shared by its reader and its list of pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from layeralign.cases.case import Case, Kind
from layeralign.cases.pictures import FilePicture
from layeralign.cases.readers.benchmark import Lister, Reader
from layeralign.cases.readers.shared import strict
from layeralign.cases.readers.shared.packed import unpacked
from layeralign.cases.readers.shared.pairing import Album, sample


@dataclass(frozen=True)
class Draft:
    """A case whose picture is not opened yet.

    Attributes:
        where: File and row, for error messages.
        id: The case's id.
        prompt, kind, category, reference, facts: As in `Case`.
        picture: The picture's path, as the row gives it; or the bytes of its file.
    """

    where: str
    id: str
    prompt: str
    kind: Kind
    picture: str | bytes
    category: str = ""
    reference: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


Drafts = Callable[[Path], tuple[str, Sequence[Draft]]]
"""Reads every row: folder -> folder of the pictures in it, and the cases; every field is checked."""


def reader(drafts: Drafts, fix: str, *, sampled: bool = False) -> Reader:
    """The reader of a benchmark; the limit takes the first cases, or a seeded sample if `sampled`.

    Args:
        drafts: Reads the rows.
        fix: Where to get the pictures, for error messages.
        sampled: Whether the limit draws by the seed.
    """

    def read(folder: Path, limit: int | None, seed: int) -> list[Case]:
        root, chosen = _chosen(drafts, folder, limit, seed if sampled else None)
        album = Album(folder / root, fix)
        return [
            Case(
                id=one.id,
                prompt=one.prompt,
                kind=one.kind,
                picture=_open(one, album),
                category=one.category,
                reference=one.reference,
                facts=one.facts,
            )
            for one in chosen
        ]

    return read


def _open(one: Draft, album: Album) -> FilePicture:
    if isinstance(one.picture, bytes):
        return unpacked(one.picture, one.where)
    return album.picture(one.picture, one.where)


def lister(drafts: Drafts) -> Lister:
    """The list of the pictures of a benchmark that is not sampled."""

    def listed(folder: Path, limit: int | None, seed: int) -> list[str]:
        root, chosen = _chosen(drafts, folder, limit, None)
        return [f"{root}/{one.picture}" for one in chosen if isinstance(one.picture, str)]

    return listed


def _chosen(drafts: Drafts, folder: Path, limit: int | None, seed: int | None) -> tuple[str, Sequence[Draft]]:
    root, found = drafts(folder)
    taken: dict[str, str] = {}
    for one in found:
        strict.claim(taken, one.id, one.where)
    return root, found[:limit] if seed is None else sample(found, limit, seed)


def paired(drafts: Sequence[Draft], harmful: Sequence[Draft]) -> list[Draft]:
    """Mark pairs: the first harmless and the first harmful case of a picture, the second ones, and so on.

    Args:
        drafts: All cases.
        harmful: Those of them that may be the harmful member of a pair.
    """
    harmless = [one for one in drafts if one.kind == "benign"]
    left: dict[str | bytes, list[Draft]] = defaultdict(list)
    for one in harmful:
        left[one.picture].append(one)
    pairs = {}
    for one in harmless:
        if left[one.picture]:
            pairs[one.id] = pairs[left[one.picture].pop(0).id] = one.id
    return [
        replace(one, facts={**one.facts, "pair": pairs[one.id]}) if one.id in pairs else one for one in drafts
    ]
