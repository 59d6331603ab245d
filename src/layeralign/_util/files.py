"""Atomic writes: a file appears complete, or not at all."""

from __future__ import annotations

import errno
import glob
import hashlib
import io
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layeralign._util.text import printable
from layeralign.errors import LayeralignError

if TYPE_CHECKING:
    from filelock import FileLock

_DRAFT, _LAST = ".draft", ("config.json", "adapter_config.json")
IN_FOLDER = ".files."
"""Start of the names of drafts that `atomic_in` makes."""
_DATABASE = b"SQLite format 3\0"
"""The first bytes of a run, which no output replaces."""
_MOST_TOKENS = 2**30
"""Largest file of token ids, in bytes."""


@contextmanager
def atomic(file: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield a draft file, which replaces `file` at the end of the block.

    The draft is synced to disk before it replaces the file. After an error, Ctrl-C or a kill, `file` is
    unchanged. A draft of a killed process is removed by the next process that writes the same file, once
    nobody else writes in the folder. What else a writer needs has the draft's name and an ending.

    Args:
        file: the file, in an existing folder.
        private: whether only its owner can read it.

    Raises:
        LayeralignError: `file` is a folder, a link, a device or a run's database, its folder does not exist,
            or the file cannot be written.
    """
    if not file.name:
        raise LayeralignError(f"out {file}: is a folder; expected a file")
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}{_DRAFT}")
    try:
        if file.is_dir():
            raise LayeralignError(f"out {file}: is a folder; expected a file")
        if file.is_symlink() or (file.exists() and not file.is_file()):  # as /dev/stdout and /dev/null
            raise LayeralignError(f"out {file}: is a link, a pipe or a device; expected a file")
        if file.exists() and _begins(file, _DATABASE):
            raise LayeralignError(f"out {file}: holds a run; expected another file")
        if not file.parent.is_dir():
            raise LayeralignError(f"out {file}: the folder {file.parent} does not exist")
        with _among_writers(file):
            handle = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 if private else 0o666)
            if private:
                os.fchmod(handle, 0o600)  # whatever the umask
            mode = os.fstat(handle).st_mode
            os.close(handle)
            yield draft
            draft.chmod(mode)  # safetensors replaces the file by one of its own mode
            _sync(draft)
            draft.replace(file)
            _sync(file.parent)
    except LayeralignError:
        raise
    except Exception as error:
        if why := _of_disk(error):
            raise LayeralignError(f"out {file}: cannot be written ({why})") from error
        raise
    finally:
        with suppress(OSError):
            draft.unlink()


@contextmanager
def atomic_in(folder: Path, what: str) -> Iterator[Path]:
    """Yield a draft folder in `folder`, which is created; what is in it moves there at the end of the block.

    The config moves last, so a model or an adapter that has one is whole. The draft ends as that of `atomic`.
    The files have the mode that the umask says.

    Args:
        folder: a new or an existing folder.
        what: what is written, for the message, such as `the model`.

    Raises:
        LayeralignError: it cannot be written.
    """
    new = not folder.exists()
    draft = folder / f"{IN_FOLDER}{secrets.token_hex(4)}{_DRAFT}"
    try:
        with saving(f"out {folder}: {what}"):
            folder.mkdir(parents=True, exist_ok=True)
            with _among_writers(folder / IN_FOLDER.strip(".")):
                draft.mkdir()
                yield draft
                for file in draft.rglob("*"):
                    if file.is_file():  # safetensors writes weights for their owner alone
                        file.chmod(draft.stat().st_mode & 0o666)
                    _sync(file)
                for one in sorted(draft.iterdir(), key=lambda file: file.name in _LAST):
                    one.replace(folder / one.name)
                _sync(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if new:
            with suppress(OSError):  # it has files
                folder.rmdir()


@contextmanager
def saving(what: str) -> Iterator[None]:
    """Convert the errors of a full disk in a block that writes; the message begins with `what`.

    Raises:
        LayeralignError: they cannot be written.
    """
    try:
        yield
    except LayeralignError:
        raise
    except Exception as error:
        if why := _of_disk(error):
            raise LayeralignError(f"{what} cannot be written ({why}); the same command resumes") from error
        raise


def _of_disk(error: BaseException | None) -> str:
    """What the disk said, if an error is the disk's; empty otherwise.

    Libraries raise errors of their own: safetensors in its place, matplotlib while it cleans up after it.
    """
    while error and not isinstance(error, OSError) and type(error).__name__ != "SafetensorError":
        error = error.__context__
    return printable(str(getattr(error, "strerror", None) or error), 200) if error else ""


def locked(folder: Path, name: str, what: str) -> FileLock:
    """Take the lock `name` in a folder; it ends with the process, or when it is released.

    Args:
        folder: an existing folder.
        name: the name of the lock's file.
        what: what is locked, for the message, such as `run FOLDER`.

    Raises:
        LayeralignError: another process has it, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout  # readers need no lock

    lock = FileLock(folder / name, mode=0o600, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise LayeralignError(
            f"{what}: another command writes to it; wait until it ends, or use another --out"
        ) from error
    except (OSError, NotImplementedError) as error:
        raise LayeralignError(f"{what}: cannot be locked for writing ({error})") from error
    return lock


@contextmanager
def holding(folder: Path, name: str, what: str) -> Iterator[None]:
    """Hold a lock in the block, in a folder that is created; see `locked`."""
    with saving(f"{what}:"):
        folder.mkdir(parents=True, exist_ok=True)
    lock = locked(folder, name, what)
    try:
        yield
    finally:
        lock.release()


def write(file: Path, text: str, *, private: bool = False) -> None:
    """Write a text as UTF-8, like `atomic`; a missing folder is created."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LayeralignError(f"out {file}: its folder cannot be made ({error.strerror})") from error
    with atomic(file, private=private) as draft, draft.open("w", encoding="utf-8", newline="") as stream:
        stream.write(text)


def write_json(file: Path, content: Any, *, private: bool = False) -> None:
    """Write indented JSON, like `write`; numbers must be finite."""
    write(file, json.dumps(content, indent=1, allow_nan=False) + "\n", private=private)


def write_tokens(file: Path, tokens: Mapping[str, list[int]]) -> None:
    """Write token ids by name, with their hash, readable by their owner alone; see `read_tokens`."""
    write(file, json.dumps({"sha256": _hash(tokens), "tokens": tokens}), private=True)


def read_tokens(file: Path) -> dict[str, list[int]]:
    """Read what `write_tokens` wrote.

    Raises:
        LayeralignError: it is damaged, or of another version.
    """
    try:
        found = json.loads(read_text(file, _MOST_TOKENS))
        if found["sha256"] != _hash(found["tokens"]):
            raise ValueError("its hash differs")
        return dict(found["tokens"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise LayeralignError(
            f"out {file.parent}: {file.name} is damaged, or of another version ({type(error).__name__}); "
            "remove it, and the same command makes it again"
        ) from error


def _hash(tokens: Mapping[str, list[int]]) -> str:
    return hashlib.sha256(json.dumps(tokens, sort_keys=True).encode()).hexdigest()


def read_regular(file: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes; type and size are those of the file that is read.

    A FIFO, a device or a file that grows meanwhile is refused, and never waited for.

    Raises:
        OSError: the file cannot be opened or read.
        ValueError: it is not a regular file, or it is larger.
    """
    handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as stream:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("is not a regular file")
        content = stream.read(limit + 1) if about.st_size <= limit else b""
        if max(about.st_size, len(content)) > limit:
            raise ValueError(f"is larger than {limit >> 20} MiB, the limit")
    return content


def read_given(file: Path, limit: int, what: str) -> bytes:
    """Read a user's file, as `read_regular`; `what` says for a message what it is.

    Raises:
        LayeralignError: it cannot be opened or read, is not a regular file, or is larger.
    """
    try:
        return read_regular(file, limit)
    except (OSError, ValueError) as error:
        raise LayeralignError(f"{what} {file}: cannot be read ({_of_disk(error) or error})") from error


def watched(files: Iterable[Path], what: str) -> Callable[[], None]:
    """Return a function that refuses files which were changed, replaced or removed since this call.

    Raises:
        LayeralignError: by the function: a file is another one; the message begins with `what`.
    """
    before = {file: stamp(file) for file in files}

    def check() -> None:
        if other := next((file for file, was in before.items() if stamp(file) != was), None):
            raise LayeralignError(f"{what}: {other.name} changed while it was read; run the command again")

    return check


def stamp(file: Path) -> tuple[int, ...]:
    """Return device, number, size and time of a file; empty if there is none."""
    try:
        about = file.stat()
    except OSError:
        return ()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def read_text(file: Path, limit: int) -> str:
    r"""Read a regular file of at most `limit` bytes as UTF-8; a byte order mark is dropped.

    Lines end with `\n`, as with `Path.read_text`.

    Raises:
        OSError: the file cannot be opened or read.
        ValueError: it is not a regular file, it is larger, or it is not UTF-8.
    """
    return io.TextIOWrapper(io.BytesIO(read_regular(file, limit)), encoding="utf-8-sig").read()


def expanded(path: str | Path) -> Path:
    """Return a path with `~` replaced by the home folder; as it is where that user is not known."""
    try:
        return Path(path).expanduser()
    except (RuntimeError, ValueError):  # ValueError: `~` and a null byte, which no file has in its name
        return Path(path)


def _begins(file: Path, start: bytes) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(start)) == start


@contextmanager
def _among_writers(file: Path) -> Iterator[None]:
    """Share the folder's lock with all who write in it; who has it alone removes what is left of a kill.

    The kernel's lock ends with its process. A process number would not do: in another container, or
    on another machine, it is another process.
    """
    import fcntl  # not on Windows

    left: list[Path] = []
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # somebody else writes, or the file system has no locks
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left = list(file.parent.glob(f".{glob.escape(file.name)}.{'[0-9a-f]' * 8}{_DRAFT}*"))
        for _ in range(100):  # one that removes drafts has it for a moment, `flock FOLDER ...` for ever
            try:
                fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:
                break
        for draft in left:
            if draft.is_dir():
                shutil.rmtree(draft, ignore_errors=True)
            else:
                draft.unlink(missing_ok=True)
        yield
    finally:
        os.close(folder)


def _sync(place: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    handle = os.open(place, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL or place.is_file():  # some file systems, as SMB's, sync no folder
            raise
    finally:
        os.close(handle)
