"""A benchmark's pictures, seeded samples of rows, and the seeded pairing of prompts with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from layeralign.cases import pictures
from layeralign.cases.readers.shared import folder as folders
from layeralign.errors import LayeralignError

T = TypeVar("T")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
PLACES = ("pictures", "images", "val2017", "val2014")
"""Folders of pictures to pair prompts with; the first that exists is used."""
COCO = "for MS-COCO, download val2017.zip (1 GB) from https://cocodataset.org/#download and unpack it there"


class Album:
    """The pictures in a folder, each checked once."""

    def __init__(self, folder: Path, fix: str) -> None:
        """Open no file outside `folder`; `fix` tells the user where to get the pictures."""
        self.folder = folder
        self._mend = fix
        self._checked: dict[str, pictures.FilePicture] = {}

    def picture(self, name: str, where: str) -> pictures.FilePicture:
        """The picture of that name, for the record at `where`.

        Raises:
            LayeralignError: See `pictures.check`; the message adds where to get the pictures.
        """
        if name not in self._checked:
            try:
                self._checked[name] = pictures.check(self.folder, name, where)
            except LayeralignError as error:
                raise LayeralignError(f"{error}; {self._mend}") from error
        return self._checked[name]


class Deck(Album):
    """An album for pairing with prompts; pictures are numbered from 0, sorted by name."""

    def __init__(self, folder: Path) -> None:
        """Find the picture folder of a benchmark that has no pictures of its own.

        Raises:
            LayeralignError: `folder` has no picture folder, or that has no pictures.
        """
        fix = f"put harmless pictures, or a link to a folder of them, there; {COCO}"
        super().__init__(folders.find_folder(folder, PLACES, "pictures", fix), fix)
        # Sorted, since the order of a directory listing depends on the file system
        self.names = sorted(file.name for file in self.folder.iterdir() if file.suffix.lower() in SUFFIXES)
        if not self.names:
            raise LayeralignError(f"{self.folder}: has no pictures ({', '.join(SUFFIXES)}); {fix}")
        unprintable = [name for name in self.names if not name.isprintable()]
        if unprintable:
            raise LayeralignError(
                f"{self.folder}: the name {unprintable[0]!r} has unprintable characters; rename the file"
            )

    def card(self, index: int, where: str) -> pictures.FilePicture:
        """The picture with that number, for the record at `where`."""
        return self.picture(self.names[index], where)


def partners(prompts: int, among: int, seed: int) -> list[int]:
    """Draw a picture number below `among` for each prompt; all are used once before any is used twice.

    A prompt's number does not depend on how many prompts there are.
    """
    rng = np.random.default_rng(seed)
    rounds = [rng.permutation(among) for _ in range(-(-prompts // among))]
    return [int(index) for index in np.concatenate(rounds)[:prompts]]


def sample(rows: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """Draw `limit` rows without replacement and keep their order; without a limit, return all rows."""
    if limit is None or limit >= len(rows):
        return list(rows)
    drawn = np.random.default_rng(seed).choice(len(rows), size=limit, replace=False)
    return [rows[index] for index in sorted(drawn.tolist())]


def paired_facts(deck: Deck, index: int, seed: int) -> dict[str, int | str]:
    """Facts that record which picture was paired with a prompt."""
    return {"pairing_seed": seed, "picture_index": index, "picture_name": deck.names[index]}
