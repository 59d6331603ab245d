"""Opening untrusted pictures, with limits on path, size and format."""

from __future__ import annotations

import hashlib
import time
import warnings
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from layeralign._util.files import read_regular
from layeralign._util.text import has_lone_surrogate, printable
from layeralign.cases.background import WHITE
from layeralign.cases.case import Case
from layeralign.errors import LayeralignError

MAX_PIXELS = 50_000_000
"""Largest width × height; a larger picture is refused before decoding."""
MAX_RATIO = 1_000
"""Largest ratio of the sides: some processors scale the shorter side to 336 pixels before they crop."""
MAX_BYTES = 64 * 2**20
"""Largest file, in bytes."""
SECONDS = 5.0
"""Most processor time that a picture file may take."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_DEPTH_AT = 24
"""Offset of the bit depth in a PNG file."""
_ANIMATED = ("PNG", "WEBP", "GIF")  # not JPEG: some cameras store a second picture in it
_JPEG_PART = 2**12
"""Bytes of a JPEG that are decoded at once; each scan in them, of 150 bytes, passes over all pixels."""


class _Timed(BytesIO):
    """The bytes of a picture file, which may have millions of parts, or scans; read for a limited time."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.end = time.thread_time() + SECONDS

    def read(self, size: int | None = -1, /) -> bytes:
        if time.thread_time() > self.end:
            raise TimeoutError(f"takes more than {SECONDS:g} s")
        return super().read(size)


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
            content = read_regular(Path(self.path), MAX_BYTES)
        except (OSError, ValueError) as error:
            raise LayeralignError(f"image {self.path}: can no longer be read ({_why(error)})") from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise LayeralignError(
                f"image {self.path}: has changed since the cases were read; run the command again"
            )
        return _decode(content, self.path, self.background)[0]


@dataclass(frozen=True)
class SentPicture:
    """A picture file in memory that `sent` has accepted.

    Attributes:
        content: The file's bytes.
        sha256, size, transparent, background: As in `FilePicture`.
        path: Always empty, since there is no file.
    """

    content: bytes = field(repr=False, compare=False)
    sha256: str
    size: tuple[int, int]
    transparent: bool
    background: str = WHITE
    path: str = ""

    def open(self) -> Image.Image:
        """Decode as `FilePicture.open` does."""
        return _decode(self.content, "image", self.background)[0]


def sent(content: bytes, shown: str) -> SentPicture:
    """Check a picture file in memory, with the limits of picture files.

    Raises:
        LayeralignError: It is not a complete picture of a known format, or it exceeds a limit.
    """
    if len(content) > MAX_BYTES:
        raise LayeralignError(f"{shown}: is larger than {MAX_BYTES >> 20} MiB, the limit")
    picture, transparent, _ = _decode(content, shown, WHITE)
    return SentPicture(content, hashlib.sha256(content).hexdigest(), picture.size, transparent)


def on_background(cases: Iterable[Case], background: str) -> list[Case]:
    """Set the background, `#rrggbb`, of the cases' pictures that can be transparent."""
    return [
        replace(case, picture=replace(case.picture, background=background))
        if isinstance(case.picture, FilePicture | HeldPicture) and case.picture.background != background
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
    shown = f"{where}: image {(name if len(name) <= 200 else name[:199] + '…')!r}"
    if "://" in name or name.startswith("data:"):
        raise LayeralignError(f"{shown}: is a URL; expected a path relative to the case file")
    if not name:
        raise LayeralignError(f"{where}: field 'image' is empty; leave it out for a case without a picture")
    if leaves(name):
        raise LayeralignError(
            f"{shown}: leaves the case file's folder; expected a relative path without '..'"
        )
    try:
        if (folder / name).is_file() and not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise LayeralignError(f"{shown}: is a link that leaves the case file's folder")
    except (OSError, ValueError, RuntimeError) as error:
        raise LayeralignError(f"{shown}: cannot be read ({_why(error)})") from error
    return read(folder / name, shown)


def read(path: Path, shown: str) -> FilePicture:
    """Read a picture file, decoding it once to detect truncated files.

    Args:
        path: Path of the file.
        shown: The row and the picture, for the error message.

    Raises:
        LayeralignError: As in `check`, except that the file may be anywhere.
    """
    try:
        file = path.resolve()
        if not file.is_file():
            raise LayeralignError(f"{shown}: no such file in {printable(str(path.parent), 200)}")
        if has_lone_surrogate(str(file)):
            raise LayeralignError(f"{shown}: is in a folder whose name is not valid UTF-8; rename the folder")
        content = read_regular(file, MAX_BYTES)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
        raise LayeralignError(f"{shown}: cannot be read ({_why(error)})") from error
    picture, transparent, animated = _decode(content, shown, WHITE)
    return FilePicture(str(file), hashlib.sha256(content).hexdigest(), picture.size, transparent, animated)


def _why(error: Exception) -> str:
    """What is wrong with a file, without its path, which may be thousands of characters long."""
    return (error.strerror if isinstance(error, OSError) else "") or printable(str(error), 200)


@dataclass(frozen=True)
class HeldPicture:
    """A picture in memory that `hold` has accepted, in the column `image` of a table of cases.

    Attributes:
        rows: The table; its row is read again when the picture is opened.
        row: Number of the row.
        sha256: SHA-256 of mode, size and pixels, in hex.
        size: Width and height in pixels.
        transparent, background: As in `FilePicture`.
        path: Always empty, since there is no file.
    """

    rows: Sequence[Mapping[str, Any]] = field(repr=False, compare=False)
    row: int
    sha256: str
    size: tuple[int, int]
    transparent: bool
    background: str = WHITE
    path: str = ""

    def open(self) -> Image.Image:
        """Draw the picture on its background, in RGB, rotated by its EXIF.

        Raises:
            LayeralignError: The picture has changed since it was checked.
        """
        shown = f"cases[{self.row}]: image"
        try:
            picture = _plain(self.rows[self.row]["image"], shown)
        except (LookupError, TypeError, AttributeError) as error:
            raise LayeralignError(f"{shown}: is no longer there; run the call again") from error
        if _hash(picture) != self.sha256:
            raise LayeralignError(f"{shown}: has changed since the cases were read; run the call again")
        return _compose(picture, self.background)[0]


def hold(rows: Sequence[Mapping[str, Any]], row: int, picture: Image.Image) -> HeldPicture:
    """Check a picture in memory, with the limits of picture files.

    Raises:
        LayeralignError: The picture is too large, has more than 8 bits per channel, or cannot be decoded.
    """
    plain = _plain(picture, f"cases[{row}]: image")
    return HeldPicture(rows, row, _hash(plain), plain.size, _compose(plain, WHITE)[1])


def data_url(picture: Image.Image, format: str, **settings: Any) -> str:
    """Encode a picture as a data URL; `settings` are those of Pillow's encoder."""
    out = BytesIO()
    picture.save(out, format, **settings)
    return f"data:image/{format.lower()};base64,{b64encode(out.getvalue()).decode()}"


def _plain(picture: Image.Image, shown: str) -> Image.Image:
    """Rotate by the EXIF and convert to RGB, or to RGBA where pixels are transparent."""
    _check_size(picture, shown)
    if picture.mode.startswith(("I", "F")):
        raise LayeralignError(f"{shown}: has more than 8 bits per channel; convert it to 8 bits")
    try:
        turned = ImageOps.exif_transpose(picture)
        return turned.convert("RGBA" if turned.has_transparency_data else "RGB")
    except Exception as error:  # a lazy image decodes here, and Pillow's decoders raise many types
        raise LayeralignError(f"{shown}: cannot be decoded ({error})") from error


def _hash(picture: Image.Image) -> str:
    """Hash mode, size and pixels."""
    return hashlib.sha256(f"{picture.mode} {picture.size}".encode() + picture.tobytes()).hexdigest()


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
            with Image.open(_Timed(content), formats=FORMATS) as picture:
                if picture.format == "JPEG":
                    picture.decodermaxblock = _JPEG_PART
                _check_size(picture, shown)
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


def _check_size(picture: Image.Image, shown: str) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise LayeralignError(f"{shown}: has {width}×{height} pixels; the limit is {MAX_PIXELS:,} in total")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise LayeralignError(
            f"{shown}: has {width}×{height} pixels; one side may be at most {MAX_RATIO} times the other"
        )


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
