"""Picture controls: each case again without its picture, with a blank picture, and with noise.

A claim about the effect of a picture has to be compared with these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

from layeralign._util.text import printable
from layeralign.cases.case import Case, Picture
from layeralign.errors import LayeralignError

if TYPE_CHECKING:
    from PIL import Image

Control = Literal["no picture", "blank", "noise"]
CONTROLS: tuple[Control, ...] = get_args(Control)
_GREY = 127


@dataclass(frozen=True)
class MadePicture:
    """A blank or noise picture with the size of the original picture.

    Attributes:
        control: `blank` (uniform grey) or `noise` (uniform random pixels).
        size: Width and height in pixels.
        seed: Seed of the noise. It comes from the original's hash, so cases with one picture share one noise.
        path: Always empty, since there is no file.
    """

    control: Control
    size: tuple[int, int]
    seed: int
    path: str = ""

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the pixels, in hex."""
        return hashlib.sha256(self.open().tobytes()).hexdigest()

    def open(self) -> Image.Image:
        """Generate the picture in RGB."""
        import numpy as np  # a summary, which needs no picture, does without
        from PIL import Image

        if self.control == "blank":
            return Image.new("RGB", self.size, (_GREY,) * 3)
        width, height = self.size
        rng = np.random.default_rng(self.seed)
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def with_controls(cases: Sequence[Case]) -> list[Case]:
    """Append the three controls of every case that has a picture: no picture, blank, noise.

    A control's id is the case's id, `#` and the control's name.

    Raises:
        LayeralignError: A case already has the id of a control.
    """
    taken = {case.id for case in cases}
    made: dict[tuple[Control, str], MadePicture] = {}
    found = list(cases)
    for case in cases:
        if case.picture is None:
            continue
        for control in CONTROLS:
            id = f"{case.id}#{control}"
            if id in taken:
                raise LayeralignError(
                    f"case {printable(repr(id), 60)}: --controls gives this id to a control of case "
                    f"{printable(repr(case.id), 60)}; rename one of the two cases"
                )
            picture = None if control == "no picture" else _instead(control, case.picture, made)
            found.append(replace(case, id=id, picture=picture, control=control))
    return found


def _instead(control: Control, picture: Picture, made: dict[tuple[Control, str], MadePicture]) -> MadePicture:
    key = control, picture.sha256
    if key not in made:
        size = getattr(picture, "size", None) or picture.open().size
        made[key] = MadePicture(control, size, int(picture.sha256[:16], 16))
    return made[key]
