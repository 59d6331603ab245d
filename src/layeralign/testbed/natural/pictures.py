"""Pictures of the natural world: an emoji on a coloured ground."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from PIL import Image

from layeralign.testbed.natural.world import COLOURS, Split, split_of

SIZE = 42
"""Width and height of a picture, in pixels: 3×3 patches of 14 pixels."""
SHEET, NAMES = (Path(__file__).parent / name for name in ("sheet.webp", "sheet.json"))
SIDE, COLUMNS = 48, 24
"""Size of an emoji on the sheet, in pixels, and number of emoji in a row."""


@cache
def emoji() -> tuple[tuple[str, str], ...]:
    """Name and kind of each emoji on the sheet, in order."""
    return tuple((name, kind) for name, kind in json.loads(NAMES.read_text(encoding="utf-8")))


@cache
def of_split(split: Split) -> dict[str, tuple[int, ...]]:
    """Kind -> places on the sheet of the emoji of a split."""
    places: dict[str, list[int]] = {}
    for at, (name, kind) in enumerate(emoji()):
        if split_of(name) == split:
            places.setdefault(kind, []).append(at)
    return {kind: tuple(found) for kind, found in sorted(places.items())}


@cache
def _sheet() -> Image.Image:
    with Image.open(SHEET) as sheet:
        return sheet.convert("RGBA")


@dataclass(frozen=True)
class EmojiPicture:
    """An emoji on a coloured ground, drawn on demand; size, place and ground vary with the seed."""

    at: int
    colour: str
    seed: int
    path: str = ""

    @property
    def kind(self) -> str:
        """What the picture shows."""
        return emoji()[self.at][1]

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the pixels, in hex."""
        return hashlib.sha256(self.open().tobytes()).hexdigest()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return SIZE, SIZE

    def open(self) -> Image.Image:
        """Draw the picture, RGB."""
        rng = random.Random(self.seed)
        ground = tuple(min(255, max(0, value + rng.randint(-12, 12))) for value in COLOURS[self.colour])
        canvas = Image.new("RGB", (2 * SIZE, 2 * SIZE), ground)
        across, down = self.at % COLUMNS * SIDE, self.at // COLUMNS * SIDE
        side = int(2 * SIZE * rng.uniform(0.6, 0.85))
        shown = _sheet().crop((across, down, across + SIDE, down + SIDE)).resize((side, side))
        canvas.paste(shown, (rng.randint(0, 2 * SIZE - side), rng.randint(0, 2 * SIZE - side)), shown)
        return canvas.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def draw(rng: random.Random, split: Split) -> EmojiPicture:
    """A random picture of a split; every kind and every colour is equally likely."""
    places = of_split(split)
    at = rng.choice(places[rng.choice(list(places))])
    return EmojiPicture(at, rng.choice(list(COLOURS)), rng.getrandbits(32))
