"""Opening a run: one writer at a time, any number of readers, and a hash that shows damage.

A writer holds a lock of the kernel, which ends with its process. When it closes the run, it writes the file's
SHA-256 next to it, the seal. Every reader compares them. A run whose writer was killed has no seal until the
next writer closes it.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layeralign._util import files
from layeralign.errors import LayeralignError
from layeralign.runs.seal import SEAL, is_sealed, sha256
from layeralign.runs.store import FILE, FORMAT, SCHEMA, Run

if TYPE_CHECKING:
    from filelock import FileLock

Folder = str | os.PathLike[str]
"""A run's folder; a `Scan` is one, too."""
LOCK = f".{FILE}.lock"
_LEFT = ("-journal", "-shm", "-wal")
"""Ends of the names of SQLite's files next to a database, whose writes they hold until these are in it."""
_TRIES, _PAUSE = 50, 0.2
"""How often, and with which pause in seconds, a writer waits at its end until nobody reads the file."""

_WEIGHTS = {"files", "revision", "adapter", "family"}
"""Parts of the identity by which two models differ."""
_HASHES = {"files", "adapter", "template"}
"""Parts of the identity that are hashes, which tell a reader little."""


def create(folder: Path, model: str, identity: Mapping[str, Any], encoder: Mapping[str, Any]) -> Run:
    """Create a run in `folder`, or open the existing run for writing if its identity is the same.

    Raises:
        LayeralignError: The folder contains a different run or other files, or another process writes to it.
    """
    if folder.exists() and not folder.is_dir():
        raise LayeralignError(
            f"out {folder}: is a file; expected a new folder, or the folder of a run to resume"
        )
    if (
        folder.is_dir()
        and not (folder / FILE).exists()
        and any(not f.name.lstrip(".").startswith(FILE) for f in folder.iterdir())
    ):
        raise LayeralignError(f"out {folder}: is not empty and has no run; use a new folder")
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # whatever the umask: answers are private
    lock = _locked(folder)
    try:
        if new := not (folder / FILE).exists():
            for left in _LEFT:  # of a file that was removed, else SQLite plays them onto this one
                (folder / f"{FILE}{left}").unlink(missing_ok=True)
            _write_new(folder / FILE, model, identity, encoder)
        run = _writer(folder, lock, new=new)
    except BaseException:
        lock.release()
        raise
    try:
        _check_same(run, model, identity)
    except BaseException as error:
        run.__exit__(type(error), error, None)
        raise
    return run


def _write_new(file: Path, model: str, identity: Mapping[str, Any], encoder: Mapping[str, Any]) -> None:
    """Write a run without rows."""
    meta = {"format": FORMAT, "model": model, "identity": dict(identity), "encoder": dict(encoder)}
    with (
        files.atomic(file, private=True) as draft,
        closing(sqlite3.connect(draft)) as connection,
        connection,
    ):
        connection.executescript(SCHEMA)
        connection.executemany(
            "INSERT INTO meta VALUES (?, ?)", [(k, json.dumps(v)) for k, v in meta.items()]
        )


def _check_same(run: Run, model: str, identity: Mapping[str, Any]) -> None:
    """Refuse a run with another identity."""
    found = run.identity
    differing = [k for k in {*identity, *found} if identity.get(k) != found.get(k)]
    if not differing:
        return
    if run.model != model and _WEIGHTS & set(differing):
        raise LayeralignError(
            f"run {run.path}: is of the model {run.model}, this command's is {model}; use another --out"
        )
    differing.sort(key=lambda k: (k in _HASHES, k))
    key = differing[0]
    was, now = found.get(key), identity.get(key)
    if isinstance(was, dict) and isinstance(now, dict):
        inner = min(k for k in {*was, *now} if was.get(k) != now.get(k))
        key, was, now = f"{key}.{inner}", was.get(inner), now.get(inner)
    raise LayeralignError(
        f"run {run.path}: has other settings ({', '.join(differing)}): its {key} is "
        f"{_short(was)}, this command's is {_short(now)}; "
        "use another --out, or the same settings"
    )


def open_run(folder: Path, *, write: bool = False) -> Run:
    """Open the run in `folder`.

    Args:
        folder: The run's folder.
        write: Whether rows or verdicts will be added. A reader needs no right to write.

    Raises:
        LayeralignError: There is no run, it cannot be read, it is damaged, or another process writes to it.
    """
    if not (folder / FILE).is_file():
        raise LayeralignError(f"run {folder}: is not a run (no {FILE}); expected the --out of a scan")
    if not write:
        return _reader(folder)
    lock = _locked(folder)
    try:
        return _writer(folder, lock)
    except BaseException:
        lock.release()
        raise


def _locked(folder: Path) -> FileLock:
    """Take the folder's lock for writing; see `layeralign._util.files.locked`.

    A file that is a link, or has another name, has other writers' lock and log, and its seal, elsewhere.
    """
    file = folder / FILE
    if file.is_symlink() or (file.exists() and not (file.is_file() and file.stat().st_nlink == 1)):
        raise LayeralignError(
            f"run {folder}: {FILE} is a link, also a hard one, or no regular file; use the file's own folder"
        )
    return files.locked(folder, LOCK, f"run {folder}")


def _writer(folder: Path, lock: FileLock, *, new: bool = False) -> Run:
    """Open for writing; the lock is released when the run is closed."""
    file = folder / FILE
    doubtful = not (new or is_sealed(folder))
    connection = sqlite3.connect(file, timeout=60)
    opened = files.stamp(file)[:2]
    moved = LayeralignError(
        f"run {folder}: {FILE} was moved, replaced or removed meanwhile; what was written is in it"
    )

    def end(seal: bool) -> None:
        whole = _one_file(connection) and seal
        connection.close()
        there = files.stamp(file)[:2] == opened  # else the hash would be another run's
        if whole and there and lock.is_locked:
            with suppress(LayeralignError):  # the disk is full
                files.write(folder / SEAL, sha256(file) + "\n", private=True)
        lock.release()
        if seal and not there:
            raise moved

    run = _opened(folder, connection, sealed=True, doubtful=doubtful, end=end, new=new)
    if doubtful:  # as a copy that was made while a command wrote: no hash is put over damage
        run.check()
    connection.execute("PRAGMA journal_mode = WAL")  # which changes no closed run, but can fail
    connection.execute("PRAGMA synchronous = NORMAL")  # a power failure may lose the last batch
    connection.execute("BEGIN IMMEDIATE")  # a full disk, or a file that is not ours to write, shows here
    connection.rollback()
    if files.stamp(file)[:2] != opened:  # else another run's hash would be removed
        raise moved
    (folder / SEAL).unlink(missing_ok=True)  # not before: a run that is refused keeps its hash
    return run


def _one_file(connection: sqlite3.Connection) -> bool:
    """Move everything into the one file, once nobody reads it; False if it cannot be done: no seal then."""
    for _ in range(_TRIES):
        try:
            connection.execute("PRAGMA busy_timeout = 0")  # else each try waits for a minute
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error:  # the disk is full, or the file is damaged or closed already
            return False
        if not busy:
            return True
        time.sleep(_PAUSE)
    return False


def _reader(folder: Path) -> Run:
    """Open for reading; where nothing can be written, a sealed file as it is, any other from a copy."""
    file = folder / FILE
    unchanged, sealed = files.watched([file], f"run {folder}"), is_sealed(folder)
    ways = [f"{file.resolve().as_uri()}?mode=rw"] if os.access(folder, os.W_OK) else []
    ways += [f"{file.resolve().as_uri()}?mode=ro&immutable=1"] if sealed else []
    for way in ways:
        connection = sqlite3.connect(way, uri=True, timeout=60)
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
            connection.execute("PRAGMA query_only = ON")
        except sqlite3.OperationalError:  # the file is not ours to write, or the disk is full
            connection.close()
            continue
        except sqlite3.DatabaseError as error:
            connection.close()
            raise _unreadable(folder, error) from error
        immutable = way.endswith("immutable=1")  # then SQLite does not look whether another machine writes
        end = _closing(connection, unchanged if immutable else lambda: None)
        return _opened(folder, connection, sealed=sealed, doubtful=not sealed, end=end)
    return _copied(folder)


def _copied(folder: Path) -> Run:
    """Open a copy of an unsealed run, in a temporary folder that ends with the run."""
    try:
        kept = _copy(folder)
    except OSError as error:
        raise LayeralignError(
            f"run {folder}: was not closed, so only a copy can be read here, and none can be made "
            f"({error.strerror or error}); set TMPDIR to a folder with space"
        ) from error
    connection = sqlite3.connect(Path(kept.name) / FILE)
    connection.execute("PRAGMA query_only = ON")

    def end(_: bool) -> None:
        connection.close()
        kept.cleanup()

    return _opened(folder, connection, sealed=False, doubtful=True, end=end)


def _copy(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """Copy the file and its log, in one state: a writer may move the log into the file meanwhile.

    Raises:
        LayeralignError: A writer did so in each of `_TRIES`.
    """
    for left in reversed(range(_TRIES)):
        unchanged = files.watched([folder / FILE], f"run {folder}")
        kept = tempfile.TemporaryDirectory(prefix="layeralign-")
        for name in (FILE, f"{FILE}-wal", f"{FILE}-journal"):  # one where there is no shared memory
            with suppress(FileNotFoundError):
                shutil.copyfile(folder / name, Path(kept.name) / name)
        try:
            unchanged()
            break
        except LayeralignError:
            kept.cleanup()
            if not left:
                raise
            time.sleep(_PAUSE)
    return kept


def _closing(connection: sqlite3.Connection, check: Callable[[], None]) -> Callable[[bool], None]:
    def end(_: bool) -> None:
        connection.close()
        check()

    return end


DOUBTFUL: list[Path] = []
SEALED: list[Path] = []
"""Runs that were opened without a hash, and with one; the command line empties both."""


def _opened(
    folder: Path,
    connection: sqlite3.Connection,
    *,
    sealed: bool,
    doubtful: bool,
    end: Callable[[bool], None],
    new: bool = False,
) -> Run:
    """Return the run behind a connection, if it is of our format."""
    run = Run(folder, connection, sealed=sealed, doubtful=doubtful, end=end)
    if not new:
        (DOUBTFUL if doubtful else SEALED).append(folder)
    try:
        version, scheme = run._meta("format"), _scheme(connection)
    except (sqlite3.DatabaseError, TypeError, ValueError) as error:
        connection.close()
        raise _unreadable(folder, error) from error
    if version != FORMAT:
        connection.close()
        raise LayeralignError(
            f"run {folder}: has format {version}, but this layeralign reads only {FORMAT}; scan again"
        )
    if scheme != _own_scheme():
        connection.close()
        raise LayeralignError(
            f"run {folder}: {FILE} has other tables, or code, than a run of format {FORMAT}; scan again"
        )
    return run


def _scheme(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return the tables, views and triggers of a database: a trigger can change what a writer writes."""
    return connection.execute("SELECT name, COALESCE(sql, '') FROM sqlite_master ORDER BY name").fetchall()


@cache
def _own_scheme() -> list[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        return _scheme(connection)


def _unreadable(folder: Path, error: Exception) -> LayeralignError:
    return LayeralignError(f"run {folder}: {FILE} cannot be read ({error})")


@contextmanager
def snapshot(run: Run) -> Iterator[None]:
    """Read one state of an open run in the block, whatever a writer does meanwhile."""
    run._db.execute("BEGIN")
    try:
        yield
    finally:
        run._db.rollback()


def identity_in(folder: Path) -> dict[str, Any]:
    """The identity of the run in a folder; empty if there is no run."""
    if not (folder / FILE).is_file():
        return {}
    with open_run(folder) as run:
        return run.identity


def _short(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else text[:57] + "..."
