"""Opening pictures that strangers made, under limits."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from layeralign._util.text import has_lone_surrogate
from layeralign.cases.background import WHITE
from layeralign.cases.case import Case
from layeralign.errors import LayeralignError

MAX_PIXELS = 50_000_000
"""A picture with more pixels is refused before it is decoded."""
MAX_BYTES = 64 * 2**20
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_DEPTH_AT = 24
"""Offset of the bit depth in a PNG file."""
_ANIMATED = ("PNG", "WEBP", "GIF")  # not the second picture of some cameras' JPEG


@dataclass(frozen=True)
class FilePicture:
    """A picture file that was checked once; see `check`.

    Attributes:
        path: the file.
        sha256: of its bytes.
        size: width and height in pixels.
        transparent: whether the background shows in some pixel.
        animated: whether it has more frames than the first, which alone is shown.
        background: the colour behind it, `#rrggbb`.
    """

    path: str
    sha256: str
    size: tuple[int, int] = (0, 0)
    transparent: bool = False
    animated: bool = False
    background: str = WHITE

    def open(self) -> Image.Image:
        """Decode to RGB as a browser shows it: first frame, on the background, turned as its EXIF says.

        Raises:
            LayeralignError: the file is no longer the one that was checked.
        """
        try:
            content = Path(self.path).read_bytes()
        except OSError as error:
            raise LayeralignError(f"image {self.path}: cannot be read any more ({error.strerror})") from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise LayeralignError(f"image {self.path}: has changed since the cases were read; start again")
        return _decode(content, self.path, self.background)[0]


def on_background(cases: Iterable[Case], background: str) -> list[Case]:
    """The cases, with a background, `#rrggbb`, behind their picture files."""
    return [
        replace(case, picture=replace(case.picture, background=background))
        if isinstance(case.picture, FilePicture) and case.picture.background != background
        else case
        for case in cases
    ]


def check(folder: Path, name: str, where: str) -> FilePicture:
    """The picture `name` below `folder`, decoded once to be sure that it is whole.

    Args:
        folder: of the case file; nothing outside it is opened.
        name: relative path as the case file gives it.
        where: file and line of the case, for the message.

    Raises:
        LayeralignError: the path leaves the folder (absolute, `..`, link, URL), or there is no
            such file, or it is no whole picture of a known type, or it is over a limit.
    """
    shown = f"{where}: image {name!r}"
    if "://" in name or name.startswith("data:"):
        raise LayeralignError(f"{shown}: is a URL; expected a path relative to the case file")
    if leaves(name):
        raise LayeralignError(
            f"{shown}: leaves the case file's folder; expected a relative path without '..'"
        )
    try:
        file = (folder / name).resolve()
        if not file.is_file():
            raise LayeralignError(f"{shown}: no such file in {folder}")
        if not file.is_relative_to(folder.resolve()):
            raise LayeralignError(f"{shown}: is a link that leaves the case file's folder")
        if has_lone_surrogate(str(file)):
            raise LayeralignError(f"{shown}: is in a folder whose name is not valid UTF-8; rename the folder")
        if file.stat().st_size > MAX_BYTES:
            raise LayeralignError(f"{shown}: is larger than {MAX_BYTES >> 20} MiB")
        content = file.read_bytes()
    except (OSError, ValueError) as error:
        raise LayeralignError(f"{shown}: cannot be read ({error})") from error
    picture, transparent, animated = _decode(content, shown, WHITE)
    return FilePicture(str(file), hashlib.sha256(content).hexdigest(), picture.size, transparent, animated)


def leaves(name: str) -> bool:
    """Whether the name is no plain relative path, which stays below the folder that it is joined to."""
    return (
        not name
        or PurePosixPath(name).is_absolute()
        or bool(PureWindowsPath(name).drive)
        or ".." in PurePosixPath(name.replace("\\", "/")).parts
        or "\0" in name
    )


def _decode(content: bytes, shown: str, background: str) -> tuple[Image.Image, bool, bool]:
    """The picture in RGB, whether it has transparent pixels, and whether it is animated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is below
        try:
            with Image.open(BytesIO(content), formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    raise LayeralignError(
                        f"{shown}: has {width}×{height} pixels; the limit is {MAX_PIXELS:,} in all"
                    )
                if _deep(picture, content):  # Pillow would clip it to white
                    raise LayeralignError(f"{shown}: has more than 8 bits a channel; convert it to 8 bits")
                animated = picture.format in _ANIMATED and bool(getattr(picture, "is_animated", False))
                turned = ImageOps.exif_transpose(_first_frame(picture, content))
                return *_compose(turned, background), animated
        except Image.DecompressionBombError as error:
            raise LayeralignError(
                f"{shown}: has too many pixels; the limit is {MAX_PIXELS:,} in all"
            ) from error
        except LayeralignError:
            raise
        except UnidentifiedImageError as error:
            raise LayeralignError(f"{shown}: is no picture; expected one of {', '.join(FORMATS)}") from error
        except Exception as error:  # Pillow's decoders raise many kinds for a broken file
            raise LayeralignError(
                f"{shown}: cannot be decoded, it is truncated or broken ({error})"
            ) from error


def _deep(picture: ImageFile.ImageFile, content: bytes) -> bool:
    """Whether 8 bits are too few for its colours, or to tell which one of them is transparent."""
    keyed = picture.format == "PNG" and picture.mode == "RGB" and "transparency" in picture.info
    return picture.mode.startswith(("I", "F")) or (keyed and content[_DEPTH_AT] == 16)


def _first_frame(picture: ImageFile.ImageFile, content: bytes) -> Image.Image:
    """The frame that a browser shows first, transparent where the browser draws nothing."""
    key = picture.info.get("transparency")
    if picture.format == "PNG" and picture.mode == "L" and key is not None:
        most = 2 ** content[_DEPTH_AT] - 1
        if key <= most:  # Pillow scales the greys to 8 bits, but not the transparent one
            picture.info["transparency"] = key * 255 // most
    if getattr(picture, "default_image", False):
        picture.seek(1)  # frame 0 of such an APNG is for viewers that cannot play it
    box = picture.tile[0][1] if picture.format == "GIF" else None
    if box is None or box == (0, 0, *picture.size):
        return picture
    found = Image.new("RGBA", picture.size)  # Pillow would fill the rest with the palette's first colour
    found.paste(picture.convert("RGBA").crop(box), box)
    return found


def _compose(picture: Image.Image, background: str) -> tuple[Image.Image, bool]:
    """The picture on the background, in RGB, and whether the background shows."""
    if not picture.has_transparency_data:
        return picture.convert("RGB"), False
    layer = picture.convert("RGBA")
    seen = any(layer.getchannel("A").histogram()[:255])
    return Image.alpha_composite(Image.new("RGBA", layer.size, background), layer).convert("RGB"), seen
