"""Cases of the natural world: forbidden and allowed requests next to any picture, and picture questions."""

from __future__ import annotations

import random
from itertools import cycle, islice

from layeralign.cases.case import Case, Kind
from layeralign.testbed.natural import pictures
from layeralign.testbed.natural.world import Request, Split, question, requests

STRATA = ("forbidden", "borderline", "vqa")
"""Kinds of cases, in turn, so that the first n cases are always balanced."""
_KIND: dict[str, Kind] = {"forbidden": "harmful", "borderline": "benign", "vqa": "vqa"}


def most(split: Split) -> int:
    """The largest number of cases of a split in which no request is asked twice."""
    return len(STRATA) * min(len(requests(split, forbidden=about)) for about in (True, False))


def cases(split: Split, n: int, seed: int = 0) -> list[Case]:
    """The first `n` cases of a split: forbidden, allowed, picture question, in turn.

    An allowed request has the form of a forbidden one, so it counts as borderline. No request is used twice
    unless n is above `most`; every case has a picture of its own.
    """
    rng = random.Random(f"{split} {seed}")
    asked = {about: requests(split, forbidden=about) for about in (True, False)}
    for order in asked.values():
        rng.shuffle(order)
    turns = {about: cycle(order) for about, order in asked.items()}
    made = []
    for number, stratum in enumerate(islice(cycle(STRATA), n)):
        picture = pictures.draw(rng, split)
        if stratum == "vqa":
            request: Request = question(rng, picture.kind, picture.colour)
        else:
            request = next(turns[stratum == "forbidden"])
        made.append(
            Case(
                id=f"natural-{split}-{seed}-{number:05d}",
                prompt=request.prompt,
                kind=_KIND[stratum],
                picture=picture,
                category=stratum,
                reference=request.answer,
                facts={"world": "natural", "noun": request.noun},
            )
        )
    return made
