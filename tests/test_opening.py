"""Opening a run: one writer, readers that need no right to write, and damage that is seen."""

import errno
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest

import children
import layeralign
from judged import IDENTITY, cases, make
from layeralign import LayeralignError
from layeralign._util import stopping
from layeralign.analysis.results import Results
from layeralign.analysis.summary import summarise
from layeralign.cases.case import Case
from layeralign.cli import main
from layeralign.runs import opening, seal
from layeralign.runs.opening import FILE, LOCK, SEAL, create, open_run
from layeralign.runs.store import Row, Run

ENCODER = {"layers": 6, "default": 5}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make(tmp_path_factory.mktemp("made") / "run", lambda exit: 6 - exit, cases(4))


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def figures(folder):
    """The summary, and every answer with its verdicts."""
    with open_run(folder) as opened:
        return json.dumps([summarise(Results.load(folder)).to_json(), list(opened.rows())])


# --- one writer


def test_a_second_writer_is_told_and_readers_are_let_in(copy):
    before = figures(copy)
    with open_run(copy, write=True):
        for again in (lambda: open_run(copy, write=True), lambda: create(copy, "a/model", IDENTITY, ENCODER)):
            with pytest.raises(LayeralignError, match="another command writes to it"):
                again()
        with open_run(copy) as reader:
            assert len(list(reader.rows())) == 84 and not reader.sealed
    assert figures(copy) == before
    open_run(copy, write=True).close()


def hold(folder):
    """A writer in another process, which ends by a kill."""
    with create(folder, "a/model", IDENTITY, ENCODER) as opened:
        opened.add_cases(cases(4))
        opened.add_answers([Row("h0", 0, "no.", 2, "stop")])
        (folder / f"{FILE}.written").touch()
        time.sleep(60)


@pytest.mark.slow
def test_the_lock_of_a_killed_writer_is_gone(tmp_path):
    folder = tmp_path / "run"
    process = children.start(hold, folder)
    process.wait_for((folder / f"{FILE}.written").exists)
    with pytest.raises(LayeralignError, match="another command writes"):
        open_run(folder, write=True)
    process.send(signal.SIGKILL)
    process.wait()
    with open_run(folder) as reader:
        assert len(list(reader.rows())) == 1 and not reader.sealed
    with pytest.raises(LayeralignError, match="was not closed: its last command was killed"):
        layeralign.verify(folder)
    with create(folder, "a/model", IDENTITY, ENCODER) as opened:
        assert sum(map(len, opened.answered().values())) == 1
    assert layeralign.verify(folder).startswith(f"run {folder}: intact; 1 answers to 12 cases")


def begin(folder, number):
    """One of several scans that start at once: 3 rows of its own, or the sentence."""
    try:
        with create(folder, "a/model", IDENTITY, ENCODER) as opened:
            opened.add_cases(cases(4))
            opened.add_answers([Row(f"h{number}", exit, "no.", 2, "stop") for exit in range(3)])
    except LayeralignError as error:
        assert "another command writes to it" in str(error)
        return 3
    return 0


@pytest.mark.slow
def test_writers_that_start_at_once_lose_nothing(tmp_path):
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        processes = [children.start(begin, folder, n) for n in range(4)]
        codes = {n: process.wait() for n, process in enumerate(processes)}
        assert set(codes.values()) <= {0, 3} and 0 in codes.values()
        with open_run(folder) as opened:
            assert opened.sealed
            done = [n for n, code in codes.items() if code == 0]
            assert {row["case"] for row in opened.rows()} == {f"h{n}" for n in done}


def test_other_settings_are_named_down_to_their_field(tmp_path):
    about = {"decoding": {"max_new_tokens": 24, "temperature": 0.0}}
    create(tmp_path / "run", "m", about, ENCODER).close()
    other = {"decoding": {"max_new_tokens": 24, "temperature": 0.7}}
    with pytest.raises(LayeralignError, match=r"its decoding.temperature is 0.0, this command's is 0.7"):
        create(tmp_path / "run", "m", other, ENCODER)


def test_a_file_of_the_user_beside_a_run_does_not_stop_it(copy):
    (copy / "report.html").write_text("mine")
    create(copy, "a/model", IDENTITY, ENCODER).close()


def test_a_writer_waits_for_readers_before_it_seals(copy):
    reads = threading.Event()

    def read():
        with open_run(copy) as reader:
            list(reader.rows())
            reads.set()
            time.sleep(0.5)

    writer, reader = open_run(copy, write=True), threading.Thread(target=read)
    reader.start()
    reads.wait()
    writer.add_session("2026-01-02", "layeralign judge", {})
    writer.close()
    reader.join()
    assert "intact" in layeralign.verify(copy)


@pytest.mark.slow
def test_a_reader_sees_one_state_of_a_run(copy, monkeypatch):
    """A judge that works while a gate reads has judged a part of the rows, and then all of them."""
    with open_run(copy, write=True) as writer:
        writer.ask_judge("refusal", again=True)
    columns = Run.columns
    monkeypatch.setattr(opening, "_PAUSE", 0.0)  # the judge does not wait for this reader

    def judged_meanwhile(reader):
        found = columns(reader)
        if not reader.doubtful:
            monkeypatch.setattr(Run, "columns", columns)
            layeralign.judge(copy, ["refusal"])
        return found

    monkeypatch.setattr(Run, "columns", judged_meanwhile)
    found = Results.load(copy)
    assert "refusal" not in found.columns.verdicts and "refusal" in found.unfinished
    assert "refusal" not in Results.load(copy).unfinished


@pytest.mark.parametrize("command", ["export", "gate"])
def test_no_output_replaces_a_run(copy, capsys, command):
    policy, file = copy.parent / "p.yaml", copy / FILE
    policy.write_text("rules:\n- {metric: asr, exits: all, upper_bound: 0.15}\n")
    flags = ["--out"] if command == "export" else ["--policy", str(policy), "--junit"]
    assert main([command, str(copy), *flags, str(file)]) == 1
    assert f"out {file}: holds a run; expected another file" in capsys.readouterr().err
    assert "intact" in layeralign.verify(copy)


def test_a_writer_does_not_wait_for_a_reader_that_stands_still(copy, monkeypatch):
    monkeypatch.setattr(opening, "_PAUSE", 0.0)
    with open_run(copy) as reader, opening.snapshot(reader):
        assert reader.judges()
        writer = open_run(copy, write=True)
        writer.add_session("2026-01-02", "layeralign judge", {})
        start = time.monotonic()
        writer.close()
        assert time.monotonic() - start < 5
    with open_run(copy, write=True):
        pass  # the next writer closes it
    assert "intact" in layeralign.verify(copy)


# --- damage


def test_a_flipped_byte_is_refused_by_every_reader(copy):
    rng, file = random.Random(0), copy / FILE
    whole = file.read_bytes()
    for _ in range(40):
        at = rng.randrange(len(whole))
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
        with pytest.raises(LayeralignError, match="is damaged: its SHA-256"):
            open_run(copy)
    with pytest.raises(LayeralignError, match="is damaged"):
        open_run(copy, write=True)
    file.write_bytes(whole)
    assert layeralign.verify(copy).endswith("intact; 84 answers to 12 cases, judged by oracle, refusal")


@pytest.mark.parametrize("words", [
    ["summary", "RUN"], ["export", "RUN"], ["compare", "RUN", "RUN"], ["report", "RUN", "--out", "OUT/a.html"],
    ["gate", "RUN", "--policy", "OUT/policy.yaml"], ["verify", "RUN"], ["judge", "RUN", "--judge", "refusal"],
    ["card", "RUN"], ["figure", "RUN", "--out", "OUT/a.csv"],
])  # fmt: skip
def test_every_command_refuses_a_damaged_run_in_one_sentence(copy, tmp_path, words, capsys):
    policy = "rules:\n  - {metric: asr, exits: all, upper_bound: 0.5}\n"
    (tmp_path / "policy.yaml").write_text(policy)
    whole = bytearray((copy / FILE).read_bytes())
    whole[len(whole) // 2] ^= 4
    (copy / FILE).write_bytes(whole)
    code = main([word.replace("RUN", str(copy)).replace("OUT", str(tmp_path)) for word in words])
    said = capsys.readouterr().err
    assert code == 1 and "is damaged" in said and "bug" not in said
    assert {f.name for f in tmp_path.iterdir()} == {"run", "policy.yaml"}


def test_an_unsealed_run_cautions_and_does_not_pass_a_gate(copy, tmp_path, capsys):
    (copy / SEAL).unlink()
    (tmp_path / "policy.yaml").write_text("rules:\n  - {metric: asr, exits: all, upper_bound: 0.99}\n")
    assert main(["gate", str(copy), "--policy", str(tmp_path / "policy.yaml")]) == 3
    assert "damage of its file cannot be ruled out" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("damage", [
    "UPDATE meta SET value = '[' WHERE key = 'identity'", "UPDATE meta SET value = '{}' WHERE key = 'encoder'",
    "UPDATE verdicts SET scores = '[1]'", """UPDATE verdicts SET scores = '{"a": "b"}'""", "DROP TABLE judges",
    "UPDATE cases SET kind = 'odd'", "UPDATE sessions SET versions = '{'", "DELETE FROM meta",
])  # fmt: skip
def test_damage_of_an_unsealed_run_is_one_sentence(copy, damage, capsys):
    (copy / SEAL).unlink()
    with closing(sqlite3.connect(copy / FILE)) as database, database:
        database.execute("INSERT INTO sessions VALUES ('2026-01-01', 'scan', '{}', 0, 0)")
        database.execute(damage)
    assert main(["summary", str(copy)]) == 1
    said = capsys.readouterr().err
    assert f"run {copy}: " in said and "bug" not in said and said.count("\n") == 1


NOTES = {
    "encoder": "{}",
    "screen": '{"a": 1}',
    "trained_on": '{"cases": 5}',
    "sequential": '{"precision": "x"}',
}
BROKEN = {
    **{f"{key} {value}": f"INSERT OR REPLACE INTO meta VALUES ('{key}', '{value}')" for key, value in NOTES.items()},
    "endless encoder": """UPDATE meta SET value = '{"layers": 1000000000000, "default": 5}' WHERE key = 'encoder'""",
    "facts": "UPDATE cases SET facts = '[1]'",
    "deep facts": f"UPDATE cases SET facts = '{'[' * 5000}'",
    "lost cases": "DELETE FROM cases WHERE number = 0",
    "lost answers": "DELETE FROM answers",
    "finish reason": "UPDATE answers SET finish_reason = 'stoq' WHERE exit = 0",
    "observation": "UPDATE verdicts SET refused = 7 WHERE refused = 1",
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_run_without_a_hash_is_no_bug_of_ours(copy, what, capsys):
    """Also where an analysis meets the damage, after the file was closed."""
    with closing(sqlite3.connect(copy / FILE)) as db, db:
        db.execute(BROKEN[what])
    (copy / SEAL).unlink()
    assert main(["summary", str(copy)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "bug" not in said and "no hash that shows it intact" in said
    assert "report this error if the run is intact" in said  # it may be a bug of ours after all


@pytest.mark.parametrize("what", ["encoder {}", "facts", "lost cases", "observation"])
def test_a_run_of_another_program_is_named_where_its_hash_fits(copy, what, capsys):
    """As one of another version; it was called a bug in layeralign, and nothing named the run."""
    with closing(sqlite3.connect(copy / FILE)) as db, db:
        db.execute(BROKEN[what])
    (copy / SEAL).write_text(seal.sha256(copy / FILE))
    assert main(["summary", str(copy)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"or another program or version wrote run {copy}, whose hash fits; --debug shows where" in said


ENDLESS = """SELECT 'h0' AS "case", 0 AS exit, value AS sample, '' AS answer, '' AS reasoning, 1 AS tokens,
 'stop' AS finish_reason FROM (WITH RECURSIVE n (value) AS (SELECT 0 UNION ALL SELECT value + 1 FROM n) SELECT * FROM n)"""
SCHEMES = {
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON verdicts BEGIN UPDATE verdicts SET verdict = 'safe'; END",
    "a view": f"ALTER TABLE answers RENAME TO a; CREATE VIEW answers AS {ENDLESS}",
    "another table": "CREATE TABLE v AS SELECT * FROM verdicts; DROP TABLE verdicts; ALTER TABLE v RENAME TO verdicts",
}


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("what", SCHEMES)
def test_a_run_with_code_or_other_tables_is_refused(copy, what, write):
    """A stranger's run, with a fitting hash, made every verdict of one's own judge safe, or had endless rows."""
    with closing(sqlite3.connect(copy / FILE)) as db, db:
        db.executescript(SCHEMES[what])
    (copy / SEAL).write_text(seal.sha256(copy / FILE))
    with pytest.raises(
        LayeralignError, match=r"run\.sqlite has other tables, or code, than a run of format 4"
    ):
        open_run(copy, write=write)


def test_a_writer_that_meets_damage_writes_no_hash_over_it(copy, capsys):
    """Then every later command would take the damage for what the last writer left."""
    with closing(sqlite3.connect(copy / FILE)) as db, db:
        db.execute("UPDATE cases SET facts = '[1]'")
    (copy / SEAL).unlink()
    assert main(["judge", str(copy), "--judge", "refusal", "--again"]) == 1
    assert "no hash that shows it intact" in capsys.readouterr().err and not (copy / SEAL).exists()


def test_a_writer_puts_no_hash_over_a_damaged_structure(copy):
    """A copy that was made while a command wrote mixes two states: it had wrong rows, and a judge closed it."""
    with closing(sqlite3.connect(copy / FILE)) as db, db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute(
            "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = 'answers') "
            "WHERE name = 'verdicts'"
        )  # two tables with the same pages
    (copy / SEAL).unlink()
    for _ in range(2):
        with pytest.raises(LayeralignError, match=r"run .* is damaged \(.*reference.*restore it from a copy"):
            open_run(copy, write=True)
    assert not (copy / SEAL).exists()


def test_a_refused_writer_leaves_the_hash(copy):
    """A command that could not read a run of another format left it without the hash that shows it intact."""
    with closing(sqlite3.connect(copy / FILE)) as db, db:
        db.execute("UPDATE meta SET value = '3' WHERE key = 'format'")
    (copy / SEAL).write_text(seal.sha256(copy / FILE))
    for _ in range(2):
        with pytest.raises(LayeralignError, match="has format 3"):
            open_run(copy, write=True)
        assert seal.is_sealed(copy)


def test_a_writer_that_cannot_begin_leaves_the_hash(copy):
    """SQLite needs a file for a writer, as it cannot make on a full disk; the hash was removed before."""
    (copy / f"{FILE}-shm").mkdir()
    with pytest.raises((LayeralignError, sqlite3.OperationalError)):
        open_run(copy, write=True)
    assert seal.is_sealed(copy)


def test_a_run_behind_a_link_is_read_and_not_written(copy, tmp_path):
    """Its lock and its hash are in the other folder: two commands wrote to it, and there it was called damaged."""
    other = tmp_path / "other"
    other.mkdir()
    (other / FILE).symlink_to(copy / FILE)
    with (
        open_run(copy, write=True),
        pytest.raises(LayeralignError, match="is a link, also a hard one, or no regular file"),
    ):
        open_run(other, write=True)
    with (
        open_run(other) as run,
        pytest.raises(LayeralignError, match="is a link, also a hard one, or no regular file"),
    ):
        create(other, run.model, run.identity, run.encoder)
    assert "intact" in layeralign.verify(copy)


def test_a_hard_link_of_a_run_is_read_and_not_written(copy, tmp_path):
    """Two commands wrote to it at once, each with a log of its own: one's rows were lost, and both said success."""
    other = tmp_path / "other"
    other.mkdir()
    os.link(copy / FILE, other / FILE)
    with open_run(other) as run:
        for folder in (copy, other):
            with pytest.raises(LayeralignError, match="is a link, also a hard one"):
                open_run(folder, write=True)
            with pytest.raises(LayeralignError, match="is a link, also a hard one"):
                create(folder, run.model, run.identity, run.encoder)
    (other / FILE).unlink()
    open_run(copy, write=True).close()
    assert "intact" in layeralign.verify(copy)


def test_a_run_that_is_moved_while_it_is_opened_keeps_its_hash(run, copy, tmp_path, monkeypatch):
    """The hash of the run in its place was removed, and its own one did not fit any more."""
    real = opening._opened

    def moves(*args, **kwargs):
        copy.rename(tmp_path / "moved")
        shutil.copytree(run, copy)
        return real(*args, **kwargs)

    with monkeypatch.context() as changed, pytest.raises(LayeralignError, match="was moved, replaced"):
        changed.setattr(opening, "_opened", moves)
        open_run(copy, write=True)
    assert seal.is_sealed(copy) and seal.is_sealed(tmp_path / "moved")


@pytest.mark.parametrize("instead", [True, False])
def test_a_run_that_is_moved_while_it_is_written_is_told(run, copy, tmp_path, instead):
    """The command showed the figures of the run in its place, and put a hash over that one."""
    opened = open_run(copy, write=True)
    copy.rename(tmp_path / "moved")
    if instead:
        shutil.copytree(run, copy)
        (copy / SEAL).unlink()
    opened.end_judge("oracle")
    with pytest.raises(LayeralignError, match="was moved, replaced or removed meanwhile"):
        opened.close()
    assert not (copy / SEAL).exists() and not (tmp_path / "moved" / SEAL).exists()
    open_run(tmp_path / "moved", write=True).close()
    assert layeralign.verify(tmp_path / "moved").endswith("84 answers to 12 cases, judged by oracle, refusal")


def test_an_unsealed_run_says_so_where_its_rows_leave_it(tmp_path, capsys):
    """A quality of a killed run made a gate pass, and an export said nothing."""
    run, labels = make(tmp_path / "run", lambda exit: 3), tmp_path / "labels.jsonl"
    layeralign.label(run, out=labels, n=40)
    rows = [json.loads(line) for line in labels.read_text().splitlines()]
    labelled = [row | {"label": "unsafe" if int(row["case"][1:]) < 5 else "safe"} for row in rows]
    labels.write_text("".join(json.dumps(row) + "\n" for row in labelled))
    layeralign.label(run, filled=labels)
    layeralign.calibrate(run, judge="oracle", out=tmp_path / "before.json")
    (run / SEAL).unlink()
    assert main(["calibrate", str(run), "--judge", "oracle", "--out", str(tmp_path / "quality.json")]) == 1
    assert "was not closed" in capsys.readouterr().err and not (tmp_path / "quality.json").exists()
    for words in (["export", str(run), "--out", "rows.jsonl"], ["label", str(run), "--out", "more.jsonl"]):
        assert main([*words[:-1], str(tmp_path / words[-1])]) == 0
        assert "was not closed" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("other", [{"identity": {"seed": 1}}, {"asked": cases(19)}, {"exits": 3}, None])
def test_answers_of_another_run_do_not_stand_next_to_these_verdicts(tmp_path, other):
    """In a notebook, a page of a run that was scanned anew had the old verdicts and the new answers."""
    found = Results.load(make(tmp_path / "run", lambda exit: 3))
    if other is None:  # it grows
        with open_run(tmp_path / "run", write=True) as run:
            run.add_answers([Row("h0", 0, "more", 1, "stop", sample=1)])
        assert found.answers["h0", 0, 1] == "more" and found.pictures == []
        return
    shutil.rmtree(tmp_path / "run")
    make(tmp_path / "run", lambda exit: 5, **other)
    for read in ("answers", "pictures"):
        with pytest.raises(LayeralignError, match=r"run .*: is another one since it was read; read it again"):
            getattr(found, read)


def test_a_new_run_has_nothing_of_an_old_ones_log(copy, tmp_path):
    """SQLite replayed the log of a killed command, whose run.sqlite was removed, onto the new run."""
    opened = open_run(copy, write=True)
    opened.add_answers([Row("h0", 6, "an old answer", 3, "stop", sample) for sample in range(1, 3000)])
    killed = shutil.copytree(copy, tmp_path / "killed")
    opened.close()
    (killed / FILE).unlink()
    with create(killed, "other/model", {"seed": 1}, ENCODER) as new:
        assert new.answered() == {} and new.identity == {"seed": 1}
    assert "intact; 0 answers" in layeralign.verify(killed)


def test_a_log_of_another_state_is_no_part_of_a_closed_run(copy, tmp_path):
    """Restored from a copy next to the log of a killed command, a run was a mix, and the next writer sealed it."""
    backup, killed = shutil.copytree(copy, tmp_path / "backup"), tmp_path / "killed"
    opened = open_run(copy, write=True)
    opened.add_answers([Row("h0", 6, "an old answer", 3, "stop", sample) for sample in range(1, 3000)])
    shutil.copytree(copy, killed)
    opened.close()
    for name in (FILE, SEAL):
        shutil.copy(backup / name, killed / name)
    for write in (False, True):
        with pytest.raises(LayeralignError, match=f"{FILE}-wal is of another state.*remove it"):
            open_run(killed, write=write)
    (killed / f"{FILE}-wal").unlink()
    assert "intact; 84 answers" in layeralign.verify(killed)


def test_a_rollback_journal_is_no_part_of_a_closed_run(copy, tmp_path):
    """SQLite plays it onto the file after its hash was compared: verify called other verdicts intact."""
    other = shutil.copytree(copy, tmp_path / "other")
    with closing(sqlite3.connect(other / FILE)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("PRAGMA synchronous = OFF")
        with db:
            db.execute("UPDATE verdicts SET verdict = 'safe'")
        db.execute("UPDATE verdicts SET verdict = 'odd'")
        shutil.copy(other / f"{FILE}-journal", copy)
        db.rollback()
    for command in (layeralign.verify, Results.load):
        with pytest.raises(LayeralignError, match=f"{FILE}-journal is of another state.*remove it"):
            command(copy)
    (copy / f"{FILE}-journal").unlink()
    assert "intact" in layeralign.verify(copy)


def test_a_writer_that_ends_while_a_reader_hashes_is_no_damage(copy, monkeypatch):
    """The reader compared the new file with the hash of the old one, and advised to scan again."""
    sha256 = seal.sha256

    def writes(file):
        monkeypatch.setattr(seal, "sha256", sha256)
        with open_run(copy, write=True) as writer:
            writer.add_session("2026-01-02", "layeralign judge", {})
        return sha256(file)

    monkeypatch.setattr(seal, "sha256", writes)
    with open_run(copy) as reader:
        assert reader.sealed and len(reader.sessions()) == 2


def test_a_hash_that_is_no_file_is_not_waited_for(copy):
    (copy / SEAL).unlink()
    os.mkfifo(copy / SEAL)
    assert not Results.load(copy).sealed


@pytest.mark.parametrize("words", [["export"], ["label"]])
def test_the_rows_of_a_stopped_scan_are_said_to_be_a_part(copy, tmp_path, words, capsys):
    """Its long answers are missing: a sample of the others was labelled as one of the run, without a word."""
    said = "note: run .*/run: is not complete: it has 83 answers, and 84 with every case at every exit; repeat its scan"
    with open_run(copy, write=True) as opened:  # a control at one exit is no part
        opened.add_cases([Case("h1#blank", "?", "harmful", control="blank")])
        opened.add_answers([Row("h1#blank", 0, "no.", 3, "stop")])
    for stopped in (False, True):
        if stopped:
            with open_run(copy, write=True) as opened, opened._db as db:
                db.execute("DELETE FROM answers WHERE \"case\" = 'h0' AND exit = 0")
        assert main([*words, str(copy), "--out", str(tmp_path / f"{stopped}.jsonl")]) == 0
        assert bool(re.search(said, " ".join(capsys.readouterr().err.split()))) is stopped


# --- readers need no right to write


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="mounts are Linux's")
@pytest.mark.parametrize("left", ["closed", "killed"])
def test_a_run_is_read_from_a_read_only_mount(run, tmp_path, left):
    folder = shutil.copytree(run, tmp_path / "run")
    if left == "killed":
        process = children.start(leave_log, folder)
        process.wait()
        assert (folder / f"{FILE}-wal").stat().st_size
    inner = f"mount -t tmpfs none /mnt && cp -r {folder} /mnt/run && mount -o remount,ro /mnt && "
    command = f"{sys.executable} -m layeralign summary /mnt/run --format json"
    tried = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inner + "true"],
                           capture_output=True, check=False)  # fmt: skip
    if tried.returncode:
        pytest.skip("this machine allows no mount in a namespace")
    found = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inner + command],
                           capture_output=True, text=True, check=False)  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["sealed"] is (left == "closed")


def judged(writer, name):
    """A judge says something about every row, in one transaction."""
    with writer._db:
        writer._db.execute("INSERT INTO judges VALUES (?, '', 84)", (name,))
        writer._db.execute(
            "INSERT INTO verdicts SELECT \"case\", exit, sample, ?, 'safe', 1, 1, NULL, '{}', '[]', '' FROM answers",
            (name,),
        )


def test_a_copy_for_reading_is_of_one_state(copy, monkeypatch):
    """Where nothing can be written, a reader copied the file, and then the log of a later state."""
    monkeypatch.setattr(opening.os, "access", lambda *_: False)
    writer, copyfile = open_run(copy, write=True), shutil.copyfile

    def works_meanwhile(source, target):
        copyfile(source, target)
        if source.name == FILE:
            monkeypatch.setattr(opening.shutil, "copyfile", copyfile)
            judged(writer, "guard")
            writer._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            judged(writer, "other")

    monkeypatch.setattr(opening.shutil, "copyfile", works_meanwhile)
    with open_run(copy) as reader:
        assert not reader.sealed
        reader.check()
        assert reader.judges() == ["guard", "oracle", "other", "refusal"]
    writer.close()


def test_a_copy_for_reading_has_the_journal_of_a_killed_writer(tmp_path, monkeypatch):
    """SQLite keeps one where a file system has no shared memory: the copy had half of a transaction."""
    copy = make(tmp_path / "large", lambda exit: 6 - exit, cases(40))
    (copy / SEAL).unlink()
    killed = tmp_path / "killed"
    with open_run(copy) as opened:
        before = list(opened.rows())
    with closing(sqlite3.connect(copy / FILE)) as writer:
        writer.execute("PRAGMA journal_mode = DELETE")
        writer.execute("PRAGMA cache_size = 1")
        written = (copy / FILE).read_bytes()
        writer.execute("UPDATE answers SET answer = answer || ' ' || hex(zeroblob(2000))")
        shutil.copytree(copy, killed)
        writer.rollback()
    assert (killed / FILE).read_bytes() != written and (killed / f"{FILE}-journal").stat().st_size
    monkeypatch.setattr(os, "access", lambda *_: False)
    with open_run(killed) as opened:
        assert list(opened.rows()) == before


def test_a_copy_for_reading_that_cannot_be_made_says_where(copy, monkeypatch):
    """On a full temporary folder the sentence named the run's file, on a disk with space."""
    monkeypatch.setattr(opening.os, "access", lambda *_: False)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device", str(copy / FILE))

    (copy / SEAL).unlink()
    monkeypatch.setattr(opening.shutil, "copyfile", full)
    with pytest.raises(LayeralignError, match=r"No space left on device\); set TMPDIR"):
        open_run(copy)


def test_a_run_that_changes_while_it_is_read_as_it_is_is_refused(copy, monkeypatch):
    """Where nothing can be written, SQLite does not look whether another machine writes."""
    monkeypatch.setattr(opening.os, "access", lambda *_: False)
    columns = Run.columns

    def judged_meanwhile(reader):
        with open_run(copy, write=True) as writer:
            judged(writer, "guard")
        return columns(reader)

    monkeypatch.setattr(Run, "columns", judged_meanwhile)
    with pytest.raises(LayeralignError, match=f"{FILE} changed while it was read; run the command again"):
        Results.load(copy)


def leave_log(folder):
    """A writer that is killed before it can close."""
    opened = open_run(folder, write=True)
    opened.add_session("2026-01-02", "layeralign judge", {})
    os.kill(os.getpid(), signal.SIGKILL)


def test_reading_leaves_the_folder_as_it_was(copy):
    before = sorted(f.name for f in copy.iterdir() if f.name != LOCK)
    figures(copy)
    assert sorted(f.name for f in copy.iterdir() if f.name != LOCK) == before == [FILE, SEAL]


def test_answers_are_private_whatever_the_umask(tmp_path):
    old = os.umask(0)
    try:
        made = make(tmp_path / "run", lambda exit: 0, cases(1))
        layeralign.export(made, out=tmp_path / "rows.jsonl")
        layeralign.report(made, out=tmp_path / "page.html", with_answers=True)
    finally:
        os.umask(old)
    assert made.stat().st_mode & 0o777 == 0o700
    for file in (made / FILE, made / SEAL, tmp_path / "rows.jsonl", tmp_path / "page.html"):
        assert file.stat().st_mode & 0o777 == 0o600, file


def test_a_full_disk_at_the_end_leaves_no_seal_and_a_whole_run(copy, monkeypatch):
    def full(*_, **__):
        raise LayeralignError("No space left on device")

    monkeypatch.setattr(opening.files, "write", full)
    with open_run(copy, write=True) as opened:
        opened.add_session("2026-01-02", "layeralign judge", {})
    assert not (copy / SEAL).exists()
    monkeypatch.undo()
    open_run(copy, write=True).close()
    assert "intact" in layeralign.verify(copy)


def listening(*words):
    """The command line with the signal handlers of its own process."""
    stopping.listen()
    return main(list(words))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_stops_a_scan_as_ctrl_c_does(tmp_path, number, code):
    out = tmp_path / "run"
    words = ["scan", "--model", "testbed", "--cases", "testbed:dev", "--limit", "2000", "--out", str(out)]
    process = children.start(listening, *words, out=tmp_path / "said")
    process.wait_for(lambda: (out / FILE).exists() and answers(out) > 20)
    process.send(number)
    assert process.wait() == code
    assert "stopped; finished work is saved" in process.said() and "Traceback" not in process.said()
    assert "intact" in layeralign.verify(out)


def answers(folder):
    with open_run(folder) as opened:
        return sum(map(len, opened.answered().values()))
