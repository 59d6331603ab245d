"""The pictures of a run's cases, for judges that must see them; a run stores only hashes and paths."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from layeralign.cases.background import WHITE
from layeralign.cases.case import Case, Picture
from layeralign.cases.controls import Control, MadePicture
from layeralign.cases.pictures import FilePicture
from layeralign.errors import LayeralignError
from layeralign.runs.store import Run
from layeralign.testbed.drawn import drawn

if TYPE_CHECKING:
    from PIL import Image


def with_pictures(run: Run) -> dict[str, Case]:
    """Case id -> case with the picture that the model saw.

    A picture is read from its file, drawn again if a testbed made it, or made again if it is a control. Any
    other picture was never a file; opening it raises `LayeralignError`, as for a file that is gone.
    """
    stored = {id: (path, sha256) for id, path, sha256 in run.pictures()}
    invented, background = drawn(stored), str(run.identity.get("background", WHITE))
    found: dict[str, Case] = {}
    for case in run.cases():  # a control comes after its original
        picture: Picture | None = None
        if case.id in stored:
            path, sha256 = stored[case.id]
            original = found.get(case.id.removesuffix(f"#{case.control}")) if case.control else None
            if path:
                picture = FilePicture(path, sha256, background=background)
            elif original and original.picture and case.control:
                picture = _Remade(original.picture, case.control, sha256)
            else:
                picture = _Drawn(invented.get(case.id), sha256)
        found[case.id] = replace(case, picture=picture)
    return found


@dataclass(frozen=True)
class _Drawn:
    """A testbed's picture; None if it is none."""

    made: Picture | None
    sha256: str
    path: str = ""

    def open(self) -> Image.Image:
        return _checked(self.made, self.sha256)


@dataclass(frozen=True)
class _Remade:
    """A control's picture, of the size of the original."""

    original: Picture
    control: str
    sha256: str
    path: str = ""

    def open(self) -> Image.Image:
        seed = int(self.original.sha256[:16], 16)
        control: Control = "noise" if self.control == "noise" else "blank"
        return _checked(MadePicture(control, self.original.open().size, seed), self.sha256)


def _checked(picture: Picture | None, sha256: str) -> Image.Image:
    if picture is None or picture.sha256 != sha256:
        raise LayeralignError("a case's picture was no file, and cannot be shown to a judge")
    return picture.open()
