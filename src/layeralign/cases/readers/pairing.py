"""Pictures of a benchmark, and seeded choices: which rows, and which picture goes with which prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from layeralign.cases import pictures
from layeralign.cases.readers import folder as folders
from layeralign.errors import LayeralignError

T = TypeVar("T")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
PLACES = ("pictures", "images", "val2017", "val2014")
"""Where the pictures lie that prompts are paired with; the first that is there is taken."""
COCO = "for MS-COCO, unpack val2017.zip (1 GB) there, to be had from https://cocodataset.org/#download"


class Album:
    """The pictures below a folder, each checked once."""

    def __init__(self, folder: Path, fix: str) -> None:
        """Nothing outside `folder` is opened; `fix` says where its pictures are had."""
        self.folder = folder
        self._mend = fix
        self._checked: dict[str, pictures.FilePicture] = {}

    def picture(self, name: str, where: str) -> pictures.FilePicture:
        """The picture of that name, for the record at `where`.

        Raises:
            LayeralignError: as `pictures.check`, with where the pictures are had.
        """
        if name not in self._checked:
            try:
                self._checked[name] = pictures.check(self.folder, name, where)
            except LayeralignError as error:
                raise LayeralignError(f"{error}; {self._mend}") from error
        return self._checked[name]


class Deck(Album):
    """An album whose pictures go with any prompt; they are numbered by name, from 0 on."""

    def __init__(self, folder: Path) -> None:
        """Of the folder of a benchmark that has no pictures of its own.

        Raises:
            LayeralignError: it holds no pictures.
        """
        fix = f"put harmless pictures there, or a link to such a folder; {COCO}"
        super().__init__(folders.find_folder(folder, PLACES, "pictures", fix), fix)
        self.names = sorted(
            file.name for file in self.folder.iterdir() if file.suffix.lower() in SUFFIXES
        )  # as they come, the numbers would depend on the disk
        if not self.names:
            raise LayeralignError(f"{self.folder}: holds no picture ({', '.join(SUFFIXES)}); {fix}")
        strange = [name for name in self.names if not name.isprintable()]
        if strange:
            raise LayeralignError(f"{self.folder}: holds {strange[0]!r}, no printable name; rename it")

    def card(self, index: int, where: str) -> pictures.FilePicture:
        """The picture of that number."""
        return self.picture(self.names[index], where)


def partners(prompts: int, among: int, seed: int) -> list[int]:
    """For each prompt a number below `among`; none comes twice before all have come once.

    A prompt's partner does not depend on how many prompts there are.
    """
    rng = np.random.default_rng(seed)
    rounds = [rng.permutation(among) for _ in range(-(-prompts // among))]
    return [int(index) for index in np.concatenate(rounds)[:prompts]]


def sample(rows: Sequence[T], limit: int | None, seed: int) -> list[T]:
    """So many of the rows, drawn without replacement, in the file's order; all without a limit."""
    if limit is None or limit >= len(rows):
        return list(rows)
    drawn = np.random.default_rng(seed).choice(len(rows), size=limit, replace=False)
    return [rows[index] for index in sorted(drawn.tolist())]


def paired_facts(deck: Deck, index: int, seed: int) -> dict[str, int | str]:
    """What says afterwards which picture went with a prompt, and why."""
    return {"pairing_seed": seed, "picture_index": index, "picture_name": deck.names[index]}
