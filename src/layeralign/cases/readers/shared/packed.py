"""Parquet files whose rows contain pictures, as the Hugging Face Hub stores them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layeralign._util.bounded import excess
from layeralign._util.files import atomic
from layeralign._util.text import printable
from layeralign.cases import cache, pictures
from layeralign.cases.readers.shared import strict
from layeralign.cases.readers.shared.strict import Row
from layeralign.errors import LayeralignError

_JPEG = b"\xff\xd8"
MAX_ROWS = 100_000
"""Most rows of a file."""


def records(file: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a Parquet file, with these columns.

    The file is decoded in a child process with limits first, because a hostile file can crash the decoder.

    Raises:
        LayeralignError: pyarrow is not installed, or the file is too large, invalid, or lacks a column.
    """
    try:
        import pyarrow.parquet  # noqa: F401  # before the child process, which shares it
    except ImportError as error:
        raise LayeralignError(f"{file}: needs pyarrow to be read; install layeralign[parquet]") from error
    if why := excess(lambda: _load(file, columns)):
        raise LayeralignError(f"{file}: {why}; expected the benchmark's file; download it again")
    return [Row(f"{file}, row {number}", fields) for number, fields in enumerate(_load(file, columns))]


def _load(file: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        if file.stat().st_size > strict.MAX_BYTES:
            raise LayeralignError(
                f"{file}: is larger than {strict.MAX_BYTES >> 20} MiB; expected a benchmark's"
            )
        with parquet.ParquetFile(file) as opened:
            about, names = opened.metadata, opened.schema_arrow.names
            if wrong := [name for name in columns if names.count(name) != 1]:
                is_ = "appears twice" if wrong[0] in names else "is missing"
                raise LayeralignError(f"{file}: column {wrong[0]!r} {is_}; expected {', '.join(columns)}")
            unpacked = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
            if about.num_rows > MAX_ROWS or unpacked > strict.MAX_BYTES:
                raise LayeralignError(
                    f"{file}: has {about.num_rows:,} rows of {unpacked:,} bytes in all; "
                    f"the limits are {MAX_ROWS:,} and {strict.MAX_BYTES:,}"
                )
            found: list[dict[str, Any]] = opened.read(list(columns), use_threads=False).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, AttributeError) as error:
        raise LayeralignError(
            f"{file}: is not a readable Parquet file ({printable(str(error), 200)}); download it again"
        ) from error
    if not found:
        raise LayeralignError(f"{file}: has no rows; download it again")
    return found


def content(row: Row, name: str) -> bytes:
    """The bytes of the picture in a column.

    Raises:
        LayeralignError: The cell has no picture, or one that is too large.
    """
    cell = row.fields.get(name)
    found = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(found, bytes) or not found:
        raise LayeralignError(f"{row.where}: field {name!r} has no picture; expected the bytes of one")
    if len(found) > pictures.MAX_BYTES:
        raise LayeralignError(
            f"{row.where}: field {name!r} is larger than {pictures.MAX_BYTES >> 20} MiB; expected a picture"
        )
    return found


def unpacked(found: bytes, where: str) -> pictures.FilePicture:
    """Write a picture to the cache, once, and check it.

    Raises:
        LayeralignError: See `pictures.read`; or its file in the cache has changed.
    """
    sha256 = hashlib.sha256(found).hexdigest()
    place = cache.folder("unpacked")
    file = place / f"{sha256}.{'jpg' if found.startswith(_JPEG) else 'png'}"
    if not file.exists():
        place.mkdir(parents=True, exist_ok=True)
        with atomic(file, private=True) as draft:
            draft.write_bytes(found)
    picture = pictures.read(file, f"{where}: its picture, unpacked to {file}")
    if picture.sha256 != sha256:
        raise LayeralignError(f"{where}: its picture, unpacked to {file}, has changed; remove that file")
    return picture
