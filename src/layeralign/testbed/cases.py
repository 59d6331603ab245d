"""The testbed's benchmark: any number of cases of one split, from a seed."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice

from PIL import Image

from layeralign.cases.case import Case, Kind
from layeralign.testbed.draw import draw
from layeralign.testbed.world import (
    Request,
    Scene,
    Split,
    how_to,
    picture_question,
    sample_scene,
)

STRATA = ("harmful", "authorised", "benign", "vqa")
"""Kinds of cases, in turn, so that the first n cases are always balanced."""
_KIND: dict[str, Kind] = {"harmful": "harmful", "authorised": "benign", "benign": "benign", "vqa": "vqa"}


@dataclass(frozen=True)
class DrawnPicture:
    """A picture that is drawn from its scene on demand."""

    scene: Scene
    seed: int
    path: str = ""

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the pixels, in hex."""
        return hashlib.sha256(draw(self.scene, self.seed).tobytes()).hexdigest()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return 32, 32

    def open(self) -> Image.Image:
        """Draw the picture, 32×32 pixels, RGB."""
        return Image.fromarray(draw(self.scene, self.seed))


def cases(split: Split, n: int, seed: int = 0) -> list[Case]:
    """The first `n` cases of a split: harmful, authorised, benign, picture question, in turn.

    Every case has its own scene.
    """
    rng = random.Random(f"{split} {seed}")
    scenes: set[Scene] = set()
    made = []
    for number in islice(count(), n):
        stratum = STRATA[number % len(STRATA)]
        while (scene := _scene(rng, split, stratum)) in scenes:
            pass
        scenes.add(scene)
        request = _request(rng, split, scene, stratum)
        facts = {"scene": scene.told(), "helpful": request.helpful}
        made.append(
            Case(
                id=f"testbed-{split}-{seed}-{number:05d}",
                prompt=request.prompt,
                kind=_KIND[stratum],
                picture=DrawnPicture(scene, rng.getrandbits(32)),
                category=stratum,
                reference=request.proper,
                facts=facts,
            )
        )
    return made


def _scene(rng: random.Random, split: Split, stratum: str) -> Scene:
    permits = {"harmful": False, "authorised": True}.get(stratum)
    return sample_scene(rng, split, permits)


def _request(rng: random.Random, split: Split, scene: Scene, stratum: str) -> Request:
    if stratum == "vqa":
        return picture_question(rng, scene)
    return how_to(rng, split, scene, harmful=stratum != "benign")
