"""Cache of downloaded files; each file is checked against the SHA-256 of its first download."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from layeralign._util import files
from layeralign.errors import LayeralignError

HOME = "LAYERALIGN_CACHE"
"""Environment variable that sets the cache folder."""
_BESIDE = ".fetched"
"""Suffix of a file's record."""


@dataclass(frozen=True)
class Record:
    """Metadata of a downloaded file, stored as JSON next to the file.

    Attributes:
        sha256: SHA-256 of the file at its first download, in hex.
        url: The address the file was downloaded from.
        revision: The commit; None if the publisher names no revision.
        licence: The licence that the publisher states.
        fetched: Time of the first download, ISO 8601 in UTC.
    """

    sha256: str
    url: str
    revision: str | None
    licence: str
    fetched: str


def folder(name: str) -> Path:
    """The folder of that name in the cache; it may not exist yet."""
    return files.expanded(os.environ.get(HOME) or "~/.cache/layeralign") / name


def held(file: Path, revision: str | None) -> bool:
    """Check whether the cache holds the file as it was first downloaded.

    Returns:
        False if the file is missing, or if it was put there by hand.

    Raises:
        LayeralignError: The file has changed, or was downloaded at another revision.
        OSError: The file cannot be read.
    """
    record = _record(file)
    if record is None:
        return False
    if record.revision != revision:
        raise LayeralignError(
            f"{file}: was downloaded at revision {record.revision}; expected {revision}; remove the file and "
            f"{_beside(file).name} to download that revision"
        )
    if not file.is_file():
        return False
    found = _sha256(file)
    if found != record.sha256:
        raise LayeralignError(
            f"{file}: has changed since its first download (SHA-256 {found[:12]}…, at first "
            f"{record.sha256[:12]}…); remove it to download the original again"
        )
    return True


def record(draft: Path, file: Path, url: str, revision: str | None, licence: str, fetched: str) -> None:
    """Record the SHA-256 of a downloaded draft of `file` at the first download.

    Raises:
        LayeralignError: The content differs from the first download.
    """
    found, known = _sha256(draft), _record(file)
    if known is not None and known.sha256 != found:
        raise LayeralignError(
            f"{url}: differs from the first download (SHA-256 {found[:12]}…, at first {known.sha256[:12]}… "
            f"on {known.fetched}) and was not kept; to accept the new version, remove {_beside(file)}, and "
            "do not compare results across versions"
        )
    if known is None:  # written before the file, so that the file never exists without its record
        files.write_json(_beside(file), asdict(Record(found, url, revision, licence, fetched)))


def _record(file: Path) -> Record | None:
    beside = _beside(file)
    try:
        record = Record(**json.loads(beside.read_text(encoding="utf-8")))
        if not isinstance(record.sha256, str):
            raise TypeError("its sha256 is not text")
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError) as error:
        raise LayeralignError(
            f"{beside}: is not a valid download record ({error}); remove it and {file.name}"
        ) from error
    return record


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}{_BESIDE}")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
