"""Files appear whole, private where they should be, and leave no draft."""

import errno
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from layeralign import LayeralignError
from layeralign._util import files
from layeralign._util.text import json_line


def drafts(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("block", [files.atomic, lambda file: files.saving(f"out {file}:")])
@pytest.mark.parametrize(
    "own", [AttributeError("no attribute 'pos'"), SafetensorError("No space left on device")]
)
def test_a_full_disk_is_one_sentence_whatever_a_library_raises(tmp_path, block, own):
    """A PDF on a full disk was called a bug: matplotlib fails again while it cleans up."""
    with pytest.raises(LayeralignError, match=r"cannot be written \(No space left"), block(tmp_path / "a"):
        try:
            if isinstance(own, AttributeError):
                raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise own
    with pytest.raises(AttributeError), block(tmp_path / "a"):
        raise AttributeError
    assert not drafts(tmp_path)


@pytest.mark.parametrize("private", [True, False])
def test_a_file_is_written_with_its_mode(tmp_path, private):
    umask = os.umask(0o022)
    try:
        files.write(tmp_path / "new" / "a.txt", "ä\r\nb\n", private=private)
    finally:
        os.umask(umask)
    file = tmp_path / "new" / "a.txt"
    assert file.read_bytes() == "ä\r\nb\n".encode() and drafts(file.parent) == []
    assert file.stat().st_mode & 0o777 == (0o600 if private else 0o644)


def test_a_private_file_replaces_a_public_one_and_stays_private(tmp_path):
    file = tmp_path / "a"
    file.write_text("old")
    file.chmod(0o644)
    files.write(file, "new", private=True)
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o600)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, LayeralignError])
def test_an_error_leaves_the_old_file_and_no_draft(tmp_path, error):
    (tmp_path / "a").write_text("old")
    with pytest.raises(error), files.atomic(tmp_path / "a") as draft:
        draft.write_text("half")
        raise error
    assert (tmp_path / "a").read_text() == "old" and drafts(tmp_path) == []


def test_json_that_is_not_finite_leaves_the_old_file(tmp_path):
    files.write_json(tmp_path / "a", {"x": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        files.write_json(tmp_path / "a", {"x": float("nan")})
    assert json.loads((tmp_path / "a").read_text()) == {"x": 1} and drafts(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from layeralign._util.files import atomic
with atomic(Path(sys.argv[1])) as draft:
    draft.write_text("half")
    Path(f"{draft}-journal").write_text("of SQLite")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_the_old_file_and_the_next_write_removes_the_draft(tmp_path):
    file = tmp_path / "[a*]?.txt"  # a name that a glob would read as a pattern
    file.write_text("old")
    others = [".[a*]?.txt.mine.draft", ".other.txt.0123abcd.draft"]  # of the user, and of another file
    for name in others:
        (tmp_path / name).write_text("stays")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(file)], check=False)
    assert killed.returncode == -signal.SIGKILL and file.read_text() == "old" and len(drafts(tmp_path)) == 4
    files.write(file, "new")
    assert file.read_text() == "new" and sorted(drafts(tmp_path)) == others


KILLED_IN = """
import os, signal, sys
from pathlib import Path
from layeralign._util.files import atomic_in
with atomic_in(Path(sys.argv[1]), "the model") as draft:
    (draft / "model.safetensors").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_model_is_a_draft_that_the_next_one_removes(tmp_path):
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED_IN, str(out)], check=False)
    assert killed.returncode == -signal.SIGKILL and [one.name[:7] for one in out.iterdir()] == [".files."]
    for content in ("old", "new"):
        with files.atomic_in(out, "the model") as draft:
            (draft / "config.json").write_text(content)
            (draft / "config.json").chmod(0o600)
        assert (out / "config.json").read_text() == content
        assert [one.name for one in out.iterdir()] == ["config.json"]
    (tmp_path / "mode").touch()
    assert (out / "config.json").stat().st_mode == (tmp_path / "mode").stat().st_mode, "as the umask says"


def test_a_folder_with_a_config_has_the_other_files_of_the_model(tmp_path, monkeypatch):
    """A kill between two moves left a config.json without the tokenizer's: another model, as it seemed whole."""
    moved, replace, listed = [], Path.replace, Path.iterdir
    monkeypatch.setattr(Path, "replace", lambda file, to: moved.append(file.name) or replace(file, to))
    monkeypatch.setattr(Path, "iterdir", lambda folder: sorted(listed(folder)))  # in any order otherwise
    with files.atomic_in(tmp_path / "out", "the model") as draft:
        for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
            (draft / name).touch()
    assert len(moved) == 3 and moved[-1] == "config.json"


@pytest.mark.parametrize("there", [True, False])
def test_a_model_that_cannot_be_written_leaves_nothing(tmp_path, there):
    out = tmp_path / "out"
    if there:
        out.mkdir()
        (out / "mine").touch()
    with pytest.raises(LayeralignError, match=r"out: the model cannot be written \(No space left"):  # noqa: SIM117
        with files.atomic_in(out, "the model") as draft:
            (draft / "config.json").touch()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert [one.name for one in tmp_path.rglob("*")] == ["out", "mine"] * there


def test_a_draft_that_is_written_stays_whatever_the_number_of_its_process(tmp_path):
    """Of two containers with one folder, each command had number 1: one moved the other's half file in place."""
    with files.atomic(tmp_path / "a") as mine:
        mine.write_text("mine")
        with files.atomic(tmp_path / "a") as other:  # a process of the same number
            other.write_text("half")
            assert mine.read_text() == "mine"
        assert (tmp_path / "a").read_text() == "half"
    assert (tmp_path / "a").read_text() == "mine" and drafts(tmp_path) == []


def test_a_writer_waits_until_another_one_has_looked_for_drafts(tmp_path):
    """Of 450 exports to one file at once, two had no lock, and their drafts were removed as those of a kill."""
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    looked = threading.Timer(0.1, os.close, [folder])
    looked.start()
    with files.atomic(tmp_path / "a") as draft:
        draft.write_text("mine")
        looked.join()
        files.write(tmp_path / "a", "other")
    assert (tmp_path / "a").read_text() == "mine"


def test_a_file_system_that_syncs_no_folder_is_written_to(tmp_path, monkeypatch):
    """The file was in place, and the command said that it cannot be written."""
    sync = os.fsync

    def only_files(handle):
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(handle)

    monkeypatch.setattr(os, "fsync", only_files)
    files.write(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"


def test_a_folder_that_another_program_locks_is_written_to(tmp_path):
    """`flock FOLDER layeralign ...` is a common way to run one command at a time."""
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    files.write(tmp_path / "a", "new")
    os.close(folder)
    assert (tmp_path / "a").read_text() == "new" and drafts(tmp_path) == []


def test_what_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for target, says in (
        (tmp_path / "folder", "is a folder; expected a file"),
        (tmp_path / "no" / "a", "the folder .*no does not exist"),
        (tmp_path / ("x" * 300), "cannot be written"),
    ):
        with pytest.raises(LayeralignError, match=says), files.atomic(target) as draft:
            draft.write_text("")
    with pytest.raises(LayeralignError, match="its folder cannot be made"):
        files.write(tmp_path / "file" / "a", "")


@pytest.mark.parametrize(
    ("content", "limit", "found"),
    [
        (b"\xef\xbb\xbfa\r\nb\rc", 9, "a\nb\nc"),
        (b"ab", 1, "is larger than"),
        (b"\xd4", 9, "can't decode"),
        (None, 9, "is not a regular file"),
    ],
)
def test_a_text_is_read_within_its_limit(tmp_path, content, limit, found):
    file = tmp_path / "a"
    os.mkfifo(file) if content is None else file.write_bytes(content)
    if found.startswith("a\n"):
        assert files.read_text(file, limit) == found
    else:
        with pytest.raises(ValueError, match=found):
            files.read_text(file, limit)


@given(st.text())
def test_a_line_of_json_is_one_line_for_every_reader(text):
    line = json_line({"answer": text})
    assert line.splitlines() == [line[:-1]] and json.loads(line) == {"answer": text}


@pytest.mark.parametrize("place", ["link", "dangling", "pipe"])
def test_a_link_or_a_device_is_not_replaced(tmp_path, place):
    """Who is root would replace /dev/null or /dev/stdout."""
    file = tmp_path / place
    if place == "pipe":
        os.mkfifo(file)
    else:
        (tmp_path / "there").write_text("kept")
        file.symlink_to("there" if place == "link" else "gone")
    with pytest.raises(LayeralignError, match="is a link, a pipe or a device; expected a file"):
        files.write(file, "new")
    assert file.is_symlink() or file.is_fifo()
    assert place != "link" or file.read_text() == "kept"
