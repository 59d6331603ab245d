"""Opening pictures that strangers made, under limits."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath

from PIL import Image, ImageOps, UnidentifiedImageError

from layeralign.errors import LayeralignError

MAX_PIXELS = 50_000_000
"""A picture with more pixels is refused before it is decoded."""
MAX_BYTES = 64 * 2**20
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")


@dataclass(frozen=True)
class FilePicture:
    """A picture file that was checked once; see `check`. `size` is its width and height in pixels."""

    path: str
    sha256: str
    size: tuple[int, int] = (0, 0)

    def open(self) -> Image.Image:
        """Decode to RGB, turned as its EXIF says.

        Raises:
            LayeralignError: the file is no longer the one that was checked.
        """
        try:
            content = Path(self.path).read_bytes()
        except OSError as error:
            raise LayeralignError(f"image {self.path}: cannot be read any more ({error.strerror})") from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise LayeralignError(f"image {self.path}: has changed since the cases were read; start again")
        return _decode(content, self.path)


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
        if file.stat().st_size > MAX_BYTES:
            raise LayeralignError(f"{shown}: is larger than {MAX_BYTES >> 20} MiB")
        content = file.read_bytes()
    except (OSError, ValueError) as error:
        raise LayeralignError(f"{shown}: cannot be read ({error})") from error
    size = _decode(content, shown).size
    return FilePicture(str(file), hashlib.sha256(content).hexdigest(), size)


def leaves(name: str) -> bool:
    """Whether the name is no plain relative path, which stays below the folder that it is joined to."""
    return (
        not name
        or PurePosixPath(name).is_absolute()
        or bool(PureWindowsPath(name).drive)
        or ".." in PurePosixPath(name.replace("\\", "/")).parts
        or "\0" in name
    )


def _decode(content: bytes, shown: str) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is below
        try:
            with Image.open(BytesIO(content), formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    raise LayeralignError(
                        f"{shown}: has {width}×{height} pixels; the limit is {MAX_PIXELS:,} in all"
                    )
                if picture.mode.startswith(("I", "F")):  # Pillow would clip it to white
                    raise LayeralignError(f"{shown}: has more than 8 bits a channel; convert it to 8 bits")
                turned = ImageOps.exif_transpose(picture)
                return turned.convert("RGB")
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
