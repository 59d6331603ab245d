"""The seal: the SHA-256 of a run's file, written next to it by the last writer."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from layeralign._util import files
from layeralign.errors import LayeralignError
from layeralign.runs.store import FILE

SEAL = f"{FILE}.sha256"
UNSEALED = "its last command was killed or still works, so damage of its file cannot be ruled out"
"""What a run without a seal means."""
_LOGS = ("-wal", "-journal")
"""Ends of the names of SQLite's logs, which it plays onto the file when it opens it."""


def is_sealed(folder: Path) -> bool:
    """Whether the run has a seal, which then fits its file.

    Raises:
        LayeralignError: The seal does not fit, or there is a log of another state.
    """
    wanted = _hash_in(folder / SEAL)
    if wanted is None:
        return False
    logged = [file.name for end in _LOGS if _size(file := folder / f"{FILE}{end}")]
    if not logged and sha256(folder / FILE) == wanted:
        return True
    now = _hash_in(folder / SEAL)
    if now is None:  # a writer has begun just now
        return False
    if now != wanted:  # and has ended
        return is_sealed(folder)
    if logged:  # a writer removes the seal before it writes
        raise LayeralignError(
            f"run {folder}: {logged[0]} is of another state than {FILE} and {SEAL}, as where these were "
            "restored from a copy; remove it to use the copy"
        )
    raise LayeralignError(
        f"run {folder}: {FILE} is damaged: its SHA-256 is not the one in {SEAL}; restore both from a copy, "
        "or scan again"
    )


def _hash_in(seal: Path) -> str | None:
    """Return the hash in a seal; None if there is none."""
    try:
        return files.read_regular(seal, 1000).decode(errors="replace").strip()
    except (OSError, ValueError):  # ValueError: no regular file, or longer than a hash
        return None


def _size(file: Path) -> int:
    """Return a file's size in bytes; 0 if there is none."""
    with suppress(OSError):
        return file.stat().st_size
    return 0


_HASHED: dict[tuple[str, int, int, int], str] = {}
"""Path, inode, size and time of a file -> its hash: a command opens a run several times."""


def sha256(file: Path) -> str:
    """Return the hash of a file, which is computed once as long as the file does not change."""
    about = file.stat()
    key = (str(file.resolve()), about.st_ino, about.st_size, about.st_mtime_ns)
    if key not in _HASHED:
        with file.open("rb") as stream:
            _HASHED[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _HASHED[key]
