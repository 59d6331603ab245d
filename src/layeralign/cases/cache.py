"""What was fetched, kept in a folder; the SHA-256 that each file had at first is held to ever after."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from layeralign._util import files
from layeralign.errors import LayeralignError

HOME = "LAYERALIGN_CACHE"
"""The environment variable with the cache's folder."""
_BESIDE = ".fetched"
"""What the name of a file's record adds to the file's own."""


@dataclass(frozen=True)
class Record:
    """What is known of a fetched file, kept as JSON beside it.

    Attributes:
        sha256: of the file as it was fetched first.
        url: from where.
        revision: the commit; None where the publisher names none.
        licence: as its publisher states it.
        fetched: when, in UTC.
    """

    sha256: str
    url: str
    revision: str | None
    licence: str
    fetched: str


def folder(name: str) -> Path:
    """The cache's folder of that name; it may not be there yet."""
    return Path(os.environ.get(HOME) or "~/.cache/layeralign").expanduser() / name


def held(file: Path, revision: str | None) -> bool:
    """Whether the file is here as it was fetched first.

    Returns:
        False if it is not here, or was not fetched but put here by hand.

    Raises:
        LayeralignError: it has changed, or was fetched at another revision.
        OSError: it cannot be read.
    """
    record = _record(file)
    if record is None:
        return False
    if record.revision != revision:
        raise LayeralignError(
            f"{file}: was fetched at revision {record.revision}; expected {revision}, remove it and "
            f"{_beside(file).name} to have that fetched"
        )
    if not file.is_file():
        return False
    found = _sha256(file)
    if found != record.sha256:
        raise LayeralignError(
            f"{file}: has changed since it was fetched (SHA-256 {found[:12]}…, "
            f"at first {record.sha256[:12]}…); remove it, and what was fetched first is fetched again"
        )
    return True


def hold(draft: Path, file: Path, url: str, revision: str | None, licence: str, fetched: str) -> None:
    """Put a fetched draft in its place, and record its SHA-256 if it is the first.

    Raises:
        LayeralignError: it is not what was fetched first; the draft is not kept.
    """
    found, record = _sha256(draft), _record(file)
    if record is not None and record.sha256 != found:
        raise LayeralignError(
            f"{url}: is not what it was when it was fetched first (SHA-256 {found[:12]}…, at first "
            f"{record.sha256[:12]}… on {record.fetched}); nothing was kept: if its authors meant the change, "
            f"remove {_beside(file)} and go on, knowing that figures before and after are of different cases"
        )
    if record is None:  # before the file, which is never here without it
        files.write_json(_beside(file), asdict(Record(found, url, revision, licence, fetched)))
    draft.replace(file)


def _record(file: Path) -> Record | None:
    beside = _beside(file)
    try:
        return Record(**json.loads(beside.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise LayeralignError(
            f"{beside}: is no record of what was fetched ({error}); remove it and {file.name}"
        ) from error


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}{_BESIDE}")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
