"""One run on disk: a folder with one SQLite file.

What shapes an answer is the run's identity and fixed when the run is made. Cases, exits and
verdicts are added to it; a row that is there is never answered again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from layeralign._util.files import atomic
from layeralign.cases.case import Case
from layeralign.errors import LayeralignError

FILE = "run.sqlite"
_PEOPLE = "human"  # the judge whose words come from a file of labels
_FORMAT = 4
_ANSWERS = """
CREATE TABLE answers (
  "case" TEXT NOT NULL REFERENCES cases (id), exit INTEGER NOT NULL, sample INTEGER NOT NULL,
  answer TEXT NOT NULL, reasoning TEXT NOT NULL, tokens INTEGER NOT NULL, finish_reason TEXT NOT NULL,
  PRIMARY KEY ("case", exit, sample)
) STRICT, WITHOUT ROWID"""
_VERDICTS = """
CREATE TABLE verdicts (
  "case" TEXT NOT NULL, exit INTEGER NOT NULL, sample INTEGER NOT NULL, judge TEXT NOT NULL,
  verdict TEXT NOT NULL, refused INTEGER, coherent INTEGER, correct REAL, scores TEXT NOT NULL DEFAULT '{}',
  categories TEXT NOT NULL DEFAULT '[]', why TEXT NOT NULL DEFAULT '',
  PRIMARY KEY ("case", exit, sample, judge)
) STRICT, WITHOUT ROWID"""
_SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE sessions (
  started TEXT NOT NULL, command TEXT NOT NULL, versions TEXT NOT NULL, rows INTEGER NOT NULL DEFAULT 0,
  seconds REAL NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE cases (
  id TEXT PRIMARY KEY, number INTEGER NOT NULL, sha256 TEXT NOT NULL, prompt TEXT NOT NULL,
  kind TEXT NOT NULL, category TEXT NOT NULL, reference TEXT, image TEXT, image_sha256 TEXT,
  facts TEXT NOT NULL, control TEXT NOT NULL DEFAULT ''
) STRICT;
{_ANSWERS};
{_VERDICTS};
CREATE TABLE judges (name TEXT PRIMARY KEY, record TEXT NOT NULL, rows INTEGER NOT NULL) STRICT;
"""


NO_ANSWER = ("reasoning", "non-finite")
"""Finish reasons of rows that hold no answer: nobody judges them, so they count as invalid."""
RowKey = tuple[str, int, int]
"""Case id, exit and sample."""


@dataclass(frozen=True)
class Row:
    """One answer: what `case` was answered at `exit`.

    Attributes:
        sample: which of the case's answers at that exit, from 0; above 0 only where answers are sampled.
        tokens: length of the answer in tokens, its reasoning and its end token included.
        finish_reason: why it ended: `stop` (the model ended it), `length` (it was cut at the longest length),
            `reasoning` (one of these within its reasoning, so that there is no answer) or `non-finite`
            (its logits were no finite numbers).
        reasoning: what the model wrote before its answer.
    """

    case: str
    exit: int
    answer: str
    tokens: int
    finish_reason: str
    sample: int = 0
    reasoning: str = ""

    @property
    def key(self) -> RowKey:
        """What no other row of the run has."""
        return self.case, self.exit, self.sample


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """One judge's word on one row, with what the summary needs to know of its case.

    `picture` is the hash of its content, None where there is none; `control` is as in `Case`,
    `finish_reason` as in `Row`.
    `refused`, `coherent` and `correct` are None where the judge does not say, `scores` is empty.
    """

    case: str
    control: str
    kind: str
    category: str
    prompt: str
    picture: str | None
    exit: int
    sample: int
    finish_reason: str
    judge: str
    verdict: str
    refused: bool | None
    coherent: bool | None
    correct: float | None
    scores: Mapping[str, float]

    @property
    def key(self) -> RowKey:
        """The row's."""
        return self.case, self.exit, self.sample


class GivenCase(NamedTuple):
    """What a run knows of a case without its rows; `picture` is the hash of its content."""

    id: str
    kind: str
    prompt: str
    picture: str | None


class Run:
    """An open run. Use as a context manager, or `close` it."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._db = connection

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write everything out and leave one file."""
        self._db.close()

    # --- what the run is

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that shapes an answer: model hashes, dtype, template, decoding, seed."""
        return dict(self._meta("identity"))

    @property
    def model(self) -> str:
        """The model's name as it was given; a name only, the identity has its hashes."""
        return str(self._meta("model"))

    @property
    def encoder(self) -> dict[str, Any]:
        """The exits of the model's encoder, as `Exits.to_json` has them."""
        return dict(self._meta("encoder"))

    @property
    def config(self) -> dict[str, Any] | None:
        """The model's own config, as its file has it; None in runs from before it was kept."""
        return self._noted("config")

    def add_config(self, config: Mapping[str, Any]) -> None:
        """Keep the model's own config; the identity has the hash of its file."""
        if self.config is None:
            self._note("config", config)

    @property
    def reward(self) -> dict[str, Any] | None:
        """The record of the reward that the model's adapter was trained against; None where none is known."""
        return self._noted("reward")

    def note_reward(self, record: Mapping[str, Any]) -> None:
        """Record what the model's adapter was trained against."""
        if self.reward != record:
            self._note("reward", record)

    @property
    def trained_on(self) -> frozenset[str]:
        """Ids of the run's cases that the model's adapter was trained on, as far as its record tells."""
        return frozenset((self._noted("trained_on") or {}).get("cases", ()))

    def note_trained_on(self, cases: Iterable[str]) -> None:
        """Record ids of cases that the model's adapter was trained on, beside those that are known."""
        if more := {*cases} - self.trained_on:
            self._note("trained_on", {"cases": sorted(self.trained_on | more)})

    @property
    def sequential(self) -> dict[str, Any] | None:
        """How a sequential scan stopped asking, as `note_sequential` was told; None where there was none."""
        return self._noted("sequential")

    def note_sequential(self, rule: Mapping[str, Any]) -> None:
        """Record that from now on the answers decide how many cases are asked. It is never taken back."""
        self._note("sequential", rule)

    @property
    def screen(self) -> dict[str, Any] | None:
        """What the last screen found, as `note_screen` was told; None where there was none."""
        return self._noted("screen")

    def note_screen(self, found: Mapping[str, Any]) -> None:
        """Keep what a screen found, in place of an earlier one."""
        self._note("screen", found)

    def noted(self) -> dict[str, dict[str, Any]]:
        """Everything that is noted beside model, identity and encoder, by key."""
        found = self._db.execute(
            "SELECT key, value FROM meta WHERE key NOT IN ('format', 'model', 'identity', 'encoder')"
        )
        return {key: dict(json.loads(value)) for key, value in found}

    def _noted(self, key: str) -> dict[str, Any] | None:
        found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else dict(json.loads(found[0]))

    def _note(self, key: str, value: Mapping[str, Any]) -> None:
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(dict(value))))

    @property
    def cost(self) -> dict[str, Any]:
        """What the encoder's exits take, as `layeralign.vlm.cost.record` has it; empty in older runs."""
        return self._noted("cost") or {}

    def add_cost(self, cost: Mapping[str, Any]) -> None:
        """Keep what the encoder's exits take."""
        if not self.cost:
            self._note("cost", cost)

    def _meta(self, key: str) -> Any:
        return json.loads(self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])

    def sessions(self) -> list[dict[str, Any]]:
        """When, by which command and with which package versions rows were added, how many, in how long."""
        found = self._db.execute("SELECT * FROM sessions ORDER BY started")
        names = [column for column, *_ in found.description]
        return [dict(zip(names, row, strict=True)) | {"versions": json.loads(row[2])} for row in found]

    def add_session(self, started: str, command: str, versions: Mapping[str, str]) -> int:
        """Record that a command is about to add rows; returns the session's number for `add_answers`."""
        with self._db:
            made = self._db.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, 0, 0)", (started, command, json.dumps(dict(versions)))
            )
        return int(made.lastrowid or 0)

    # --- cases

    def add_cases(self, cases: Iterable[Case], anew: Iterable[str] = ()) -> None:
        """Add the cases that are new.

        Of one that is known only category, reference and facts can differ, which no model is shown: they are
        put in place of the old ones, and judges named in `anew` forget what they said of it.

        Raises:
            LayeralignError: a case of the same id asks something else in the run, or is of another kind.
        """
        known, shown = self.case_hashes(), self._shown()
        new: list[tuple[object, ...]] = []
        mended: list[tuple[object, ...]] = []
        for case in cases:
            facts, picture = json.dumps(dict(case.facts)), case.picture
            about = (case.prompt, case.kind, picture and picture.sha256, case.control)
            if case.id not in known:
                new.append(
                    (case.id, len(known) + len(new), case.sha256, case.prompt, case.kind, case.category,
                     case.reference, picture and picture.path, picture and picture.sha256, facts,
                     case.control)
                )  # fmt: skip
            elif known[case.id] != case.sha256:
                if shown[case.id] != about or self.sequential:
                    raise LayeralignError(
                        f"run {self.path}: case {case.id!r} differs from the run's case of that id; "
                        "use another --out, or give the changed case a new id"
                    )
                mended.append((case.sha256, case.category, case.reference, facts, case.id))
        with self._db:
            self._db.executemany("INSERT INTO cases VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", new)
            self._db.executemany(
                "UPDATE cases SET sha256 = ?, category = ?, reference = ?, facts = ? WHERE id = ?", mended
            )
            self._db.executemany(
                'DELETE FROM verdicts WHERE judge = ? AND "case" = ?',
                [(judge, id) for judge in anew for *_, id in mended],
            )

    def _shown(self) -> dict[str, tuple[object, ...]]:
        """Case id -> what shapes its answers, and its kind."""
        found = self._db.execute("SELECT id, prompt, kind, image_sha256, control FROM cases")
        return {id: tuple(about) for id, *about in found}

    def cases(self) -> Iterator[Case]:
        """Every case, in the order in which they came, without pictures."""
        for id, prompt, kind, category, reference, facts, control in self._db.execute(
            "SELECT id, prompt, kind, category, reference, facts, control FROM cases ORDER BY number"
        ):
            yield Case(id, prompt, kind, None, category, reference, json.loads(facts), control)

    def given(self) -> list[GivenCase]:
        """Every case that is no control, in the order in which they came."""
        found = self._db.execute(
            "SELECT id, kind, prompt, image_sha256 FROM cases WHERE control = '' ORDER BY number"
        )
        return [GivenCase(*row) for row in found]

    def case_hashes(self) -> dict[str, str]:
        """Case id -> hash of everything that shapes its answer or its judgement."""
        return dict(self._db.execute("SELECT id, sha256 FROM cases"))

    # --- answers

    def answered(self) -> set[RowKey]:
        """The key of every row."""
        return set(self._db.execute('SELECT "case", exit, sample FROM answers'))

    def add_answers(self, rows: Iterable[Row], session: int = 0, seconds: float = 0.0) -> None:
        """Add rows in one transaction; those already there stay as they are.

        Args:
            rows: what was answered.
            session: as `add_session` returned it; 0 where none is kept.
            seconds: what these rows took.
        """
        values = [(*r.key, r.answer, r.reasoning, r.tokens, r.finish_reason) for r in rows]
        with self._db:
            self._db.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            self._db.execute(
                "UPDATE sessions SET rows = rows + ?, seconds = seconds + ? WHERE rowid = ?",
                (len(values), seconds, session),
            )

    def unjudged(self, judge: str, *, invalid: bool = False) -> list[tuple[RowKey, str]]:
        """Key and answer of rows that `judge` has no word on - with `invalid`, or an invalid one.

        Rows without an answer (`NO_ANSWER`) are never judged.
        """
        found = self._db.execute(
            'SELECT a."case", a.exit, a.sample, a.answer FROM answers a LEFT JOIN verdicts v '
            'ON v."case" = a."case" AND v.exit = a.exit AND v.sample = a.sample AND v.judge = ? '
            "WHERE (v.judge IS NULL OR (? AND v.verdict = 'invalid')) "
            'AND a.finish_reason NOT IN (?, ?) ORDER BY a."case", a.exit, a.sample',
            (judge, invalid, *NO_ANSWER),
        )
        return [((case, exit, sample), answer) for case, exit, sample, answer in found]

    # --- verdicts

    def ask_judge(self, name: str, *, again: bool = False) -> None:
        """Record that a judge was asked, before it is loaded; it is unfinished until `end_judge`.

        Args:
            name: of the judge.
            again: forget what it is and all that it said.
        """
        with self._db:
            if again:
                self._forget(name)
            self._db.execute("INSERT OR IGNORE INTO judges VALUES (?, '', 0)", (name,))

    def end_judge(self, name: str) -> None:
        """Record that a judge has seen every row that there is."""
        with self._db:
            self._db.execute(
                "UPDATE judges SET rows = (SELECT COUNT(*) FROM answers) WHERE name = ?", (name,)
            )

    def unfinished(self) -> dict[str, tuple[int, int]]:
        """Judges that were asked and have not seen every row: (rows with a word of theirs, all rows).

        People are asked about a sample only, and so never among them.
        """
        (rows,) = self._db.execute("SELECT COUNT(*) FROM answers").fetchone()
        found = self._db.execute(
            "SELECT name, (SELECT COUNT(*) FROM verdicts WHERE judge = name) FROM judges "
            "WHERE rows < ? AND name != ? ORDER BY name",
            (rows, _PEOPLE),
        )
        return {name: (words, rows) for name, words in found}

    def add_judge(self, name: str, record: Mapping[str, Any]) -> None:
        """Record what a judge is that is about to judge.

        Raises:
            LayeralignError: another judge of that name has judged here: other files, revision or server.
        """
        self.ask_judge(name)
        (found,) = self._db.execute("SELECT record FROM judges WHERE name = ?", (name,)).fetchone()
        if found and json.loads(found) != json.loads(json.dumps(dict(record))):
            raise LayeralignError(
                f"run {self.path}: {name} has judged it with other files, revision or endpoint; "
                "judge with --again to discard those verdicts"
            )
        if not found:
            with self._db:
                self._db.execute(
                    "UPDATE judges SET record = ? WHERE name = ?", (json.dumps(dict(record)), name)
                )

    def judge_record(self, name: str) -> dict[str, Any]:
        """What a judge that has judged here is, as `add_judge` was told."""
        found = self._db.execute("SELECT record FROM judges WHERE name = ?", (name,)).fetchone()
        return dict(json.loads(found[0])) if found and found[0] else {}

    def replace(self, judge: str, record: Mapping[str, Any], words: Iterable[tuple[RowKey, Any]]) -> None:
        """Put a judge's words in place of all that was kept under its name, wholly or not at all."""
        with self._db:
            self._forget(judge)
            self._db.execute("INSERT INTO judges VALUES (?, ?, 0)", (judge, json.dumps(dict(record))))
            self._say(judge, words)

    def add_verdicts(self, judge: str, words: Iterable[tuple[RowKey, Any]]) -> None:
        """Add one judge's words in one transaction, in place of older ones."""
        with self._db:
            self._say(judge, words)

    def _forget(self, judge: str) -> None:
        self._db.execute("DELETE FROM verdicts WHERE judge = ?", (judge,))
        self._db.execute("DELETE FROM judges WHERE name = ?", (judge,))

    def _say(self, judge: str, words: Iterable[tuple[RowKey, Any]]) -> None:
        values = [
            (*key, judge, w.verdict, w.refused, w.coherent, w.correct, json.dumps(dict(w.scores)),
             json.dumps(w.categories), w.why)
            for key, w in words
        ]  # fmt: skip
        self._db.executemany(
            "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values
        )

    def invalid(self, judge: str) -> list[tuple[str, int]]:
        """Count of the reasons why a judge's words are invalid, the most frequent first."""
        return self._db.execute(
            "SELECT why, COUNT(*) FROM verdicts WHERE judge = ? AND verdict = 'invalid' "
            "GROUP BY why ORDER BY 2 DESC, 1",
            (judge,),
        ).fetchall()

    def judges(self) -> list[str]:
        """Names of the judges that have a word on some row, sorted."""
        return [name for (name,) in self._db.execute("SELECT DISTINCT judge FROM verdicts ORDER BY judge")]

    def judged(self) -> Iterator[JudgedRow]:
        """Every verdict, with what is known of its case; an answer without any has judge ""."""
        found = self._db.execute(
            'SELECT a."case", c.control, c.kind, c.category, c.prompt, c.image_sha256, a.exit, a.sample, '
            "a.finish_reason, COALESCE(v.judge, ''), COALESCE(v.verdict, 'not applicable'), "
            "v.refused, v.coherent, v.correct, COALESCE(v.scores, '{}') "
            'FROM answers a JOIN cases c ON c.id = a."case" '
            'LEFT JOIN verdicts v ON v."case" = a."case" AND v.exit = a.exit AND v.sample = a.sample '
            "ORDER BY c.number, a.exit, a.sample, v.judge"
        )
        for *row, verdict, refused, coherent, correct, scores in found:
            said = _flag(refused), _flag(coherent), correct, json.loads(scores)
            yield JudgedRow(*row, verdict, *said)  # type: ignore[call-arg]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every answer with its case and its verdicts, for an export.

        Answers are what the model said: private, and hostile to whatever shows them.
        """
        verdicts: dict[RowKey, dict[str, dict[str, Any]]] = {}
        for row in self.judged():
            if row.judge:
                verdicts.setdefault(row.key, {})[row.judge] = {name: getattr(row, name) for name in SAID}
        cursor = self._db.execute(
            'SELECT a."case", a.exit, a.sample, c.kind, c.category, c.control, c.prompt, c.image, '
            "c.reference, a.answer, a.reasoning, a.tokens, a.finish_reason "
            'FROM answers a JOIN cases c ON c.id = a."case" ORDER BY c.number, a.exit, a.sample'
        )
        names = [column for column, *_ in cursor.description]
        for row in cursor:
            shown = dict(zip(names, row, strict=True))
            shown["verdicts"] = verdicts.get(row[:3], {})
            yield shown


SAID = ("verdict", "refused", "coherent", "correct", "scores")
"""What a judge's word on a row is exported as."""


def _flag(said: int | None) -> bool | None:
    return None if said is None else bool(said)


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=60)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")  # a crash of the machine may lose the last batch
    return connection


def create(folder: Path, model: str, identity: Mapping[str, Any], encoder: Mapping[str, Any]) -> Run:
    """Make a run in `folder`, or open the one that is there if it is the same.

    Raises:
        LayeralignError: the folder holds another run, or something else.
    """
    file = folder / FILE
    if file.exists():
        run = open_run(folder)
        found = run.identity
        if differing := sorted(k for k in {*identity, *found} if identity.get(k) != found.get(k)):
            run.close()
            key = differing[0]
            raise LayeralignError(
                f"run {folder}: has other settings ({', '.join(differing)}): its {key} is "
                f"{_short(found.get(key))}, this command's is {_short(identity.get(key))}; "
                "use another --out, or the same settings"
            )
        return run
    if folder.exists() and not folder.is_dir():
        raise LayeralignError(
            f"out {folder}: is a file; expected a new folder, or the folder of a run to resume"
        )
    if folder.is_dir() and any(not f.name.lstrip(".").startswith(FILE) for f in folder.iterdir()):
        raise LayeralignError(f"out {folder}: is not empty and has no run; use a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    meta = {"format": _FORMAT, "model": model, "identity": dict(identity), "encoder": dict(encoder)}
    with atomic(file, private=True) as draft, closing(sqlite3.connect(draft)) as connection, connection:
        connection.executescript(_SCHEMA)
        connection.executemany(
            "INSERT INTO meta VALUES (?, ?)", [(k, json.dumps(v)) for k, v in meta.items()]
        )
    return Run(folder, _connect(file))


def open_run(folder: Path) -> Run:
    """Open the run in `folder`.

    Raises:
        LayeralignError: there is none, or it cannot be read.
    """
    file = folder / FILE
    if not file.is_file():
        raise LayeralignError(f"run {folder}: is not a run (no {FILE}); expected the --out of a scan")
    try:
        run = Run(folder, _connect(file))
        version = run._meta("format")
    except (sqlite3.DatabaseError, TypeError) as error:
        raise LayeralignError(f"run {folder}: {FILE} cannot be read ({error})") from error
    if version != _FORMAT:
        raise LayeralignError(
            f"run {folder}: has format {version}, but this layeralign reads only {_FORMAT}; scan again"
        )
    return run


def identity_in(folder: Path) -> dict[str, Any]:
    """The identity of the run in a folder; empty where there is none."""
    if not (folder / FILE).is_file():
        return {}
    with open_run(folder) as run:
        return run.identity


def _short(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 60 else text[:57] + "..."
