"""Opening untrusted pictures, with limits on path, size and format."""

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
"""Largest width × height; a larger picture is refused before decoding."""
MAX_BYTES = 64 * 2**20
"""Largest file, in bytes."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_DEPTH_AT = 24
"""Offset of the bit depth in a PNG file."""
_ANIMATED = ("PNG", "WEBP", "GIF")  # not JPEG: some cameras store a second picture in it


@dataclass(frozen=True)
class FilePicture:
    """A picture file that `check` has accepted.

    Attributes:
        path: Path of the file.
        sha256: SHA-256 of the file's bytes, in hex.
        size: Width and height in pixels.
        transparent: Whether the background is visible in some pixel.
        animated: Whether the file has several frames; only the first is used.
        background: The colour behind transparent pixels, `#rrggbb`.
    """

    path: str
    sha256: str
    size: tuple[int, int] = (0, 0)
    transparent: bool = False
    animated: bool = False
    background: str = WHITE

    def open(self) -> Image.Image:
        """Decode to RGB as a browser shows it: first frame, on the background, rotated by its EXIF.

        Raises:
            LayeralignError: The file has changed since it was checked, or cannot be read.
        """
        try:
            content = Path(self.path).read_bytes()
        except OSError as error:
            raise LayeralignError(f"image {self.path}: can no longer be read ({error.strerror})") from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise LayeralignError(
                f"image {self.path}: has changed since the cases were read; run the command again"
            )
        return _decode(content, self.path, self.background)[0]


def on_background(cases: Iterable[Case], background: str) -> list[Case]:
    """Set the background, `#rrggbb`, of the cases' picture files."""
    return [
        replace(case, picture=replace(case.picture, background=background))
        if isinstance(case.picture, FilePicture) and case.picture.background != background
        else case
        for case in cases
    ]


def check(folder: Path, name: str, where: str) -> FilePicture:
    """Check the picture `name` in `folder`, decoding it once to detect truncated files.

    Args:
        folder: The case file's folder; no file outside it is opened.
        name: Relative path, as the case file gives it.
        where: File and line of the case, for the error message.

    Raises:
        LayeralignError: The path leaves the folder (absolute, `..`, link, URL), the file is missing, it is
            not a complete picture of a known format, or it exceeds a limit.
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
            raise LayeralignError(f"{shown}: is larger than {MAX_BYTES >> 20} MiB, the limit")
        content = file.read_bytes()
    except (OSError, ValueError) as error:
        raise LayeralignError(f"{shown}: cannot be read ({error})") from error
    picture, transparent, animated = _decode(content, shown, WHITE)
    return FilePicture(str(file), hashlib.sha256(content).hexdigest(), picture.size, transparent, animated)


def leaves(name: str) -> bool:
    """Whether a path could leave the folder it is joined to: it is absolute or has `..`, a drive or NUL."""
    return (
        not name
        or PurePosixPath(name).is_absolute()
        or bool(PureWindowsPath(name).drive)
        or ".." in PurePosixPath(name.replace("\\", "/")).parts
        or "\0" in name
    )


def _decode(content: bytes, shown: str, background: str) -> tuple[Image.Image, bool, bool]:
    """Decode to RGB; also return whether pixels are transparent and whether it is animated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is checked below
        try:
            with Image.open(BytesIO(content), formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    raise LayeralignError(
                        f"{shown}: has {width}×{height} pixels; the limit is {MAX_PIXELS:,} in total"
                    )
                if _deep(picture, content):  # Pillow would clip it to white
                    raise LayeralignError(f"{shown}: has more than 8 bits per channel; convert it to 8 bits")
                animated = picture.format in _ANIMATED and bool(getattr(picture, "is_animated", False))
                turned = ImageOps.exif_transpose(_first_frame(picture, content))
                return *_compose(turned, background), animated
        except Image.DecompressionBombError as error:
            raise LayeralignError(
                f"{shown}: has too many pixels; the limit is {MAX_PIXELS:,} in total"
            ) from error
        except LayeralignError:
            raise
        except UnidentifiedImageError as error:
            raise LayeralignError(f"{shown}: is not a picture; expected {', '.join(FORMATS)}") from error
        except Exception as error:  # Pillow's decoders raise many types for a broken file
            raise LayeralignError(
                f"{shown}: cannot be decoded, it is truncated or corrupt ({error})"
            ) from error


def _deep(picture: ImageFile.ImageFile, content: bytes) -> bool:
    """Whether the colours, or the transparent colour of a PNG, have more than 8 bits per channel."""
    keyed = picture.format == "PNG" and picture.mode == "RGB" and "transparency" in picture.info
    return picture.mode.startswith(("I", "F")) or (keyed and content[_DEPTH_AT] == 16)


def _first_frame(picture: ImageFile.ImageFile, content: bytes) -> Image.Image:
    """The first frame that a browser shows, transparent where the browser draws nothing."""
    key = picture.info.get("transparency")
    if picture.format == "PNG" and picture.mode == "L" and key is not None:
        most = 2 ** content[_DEPTH_AT] - 1
        if key <= most:  # Pillow scales grey values to 8 bits, but not the transparent value
            picture.info["transparency"] = key * 255 // most
    if getattr(picture, "default_image", False):
        picture.seek(1)  # frame 0 of such an APNG is for viewers without APNG support
    box = picture.tile[0][1] if picture.format == "GIF" else None
    if box is None or box == (0, 0, *picture.size):
        return picture
    # Pillow would fill the rest with the palette's first colour
    found = Image.new("RGBA", picture.size)
    found.paste(picture.convert("RGBA").crop(box), box)
    return found


def _compose(picture: Image.Image, background: str) -> tuple[Image.Image, bool]:
    """Draw the picture on the background, in RGB; also return whether the background is visible."""
    if not picture.has_transparency_data:
        return picture.convert("RGB"), False
    layer = picture.convert("RGBA")
    seen = any(layer.getchannel("A").histogram()[:255])
    return Image.alpha_composite(Image.new("RGBA", layer.size, background), layer).convert("RGB"), seen
