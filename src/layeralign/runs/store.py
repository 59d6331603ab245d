"""A run on disk: a folder with one SQLite file.

Everything that affects an answer is the run's identity, which is fixed when the run is created. Cases, exits
and verdicts can be added; an existing row is never answered again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from layeralign._util.text import sharing
from layeralign.cases.case import Case
from layeralign.errors import LayeralignError
from layeralign.runs.damage import DAMAGE, check, unreadable

if TYPE_CHECKING:
    from layeralign.runs.columns import Columns

FILE = "run.sqlite"
_PEOPLE = "human"  # the judge whose verdicts come from a file of labels
FORMAT = 4
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
SCHEMA = f"""
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
"""Finish reasons of rows without an answer: they are not judged and count as invalid."""
_UNJUDGED = (
    'FROM answers a LEFT JOIN verdicts v ON v."case" = a."case" AND v.exit = a.exit AND v.sample = a.sample '
    "AND v.judge = ? WHERE (v.judge IS NULL OR (? AND v.verdict = 'invalid')) "
    "AND a.finish_reason NOT IN (?, ?)"
)
RowKey = tuple[str, int, int]
"""Case id, exit and sample."""
Answered = dict[tuple[int, int], set[str]]
"""Exit and sample -> ids of the cases with a row."""


@dataclass(frozen=True)
class Row:
    """One answer to a case at an exit.

    Attributes:
        case: The case's id.
        exit: The exit's number.
        answer: The answer's text.
        tokens: Length of the answer in tokens, including its reasoning and its end token.
        finish_reason: Why it ended: `stop` (the model ended it), `length` (it reached the length limit),
            `reasoning` (either of these within its reasoning, so that there is no answer) or `non-finite`
            (its logits were not finite).
        sample: Number of the answer, from 0; above 0 only for sampled answers.
        reasoning: The model's reasoning before its answer.
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
        """The row's unique key in the run."""
        return self.case, self.exit, self.sample


class GivenCase(NamedTuple):
    """A case of a run without its rows; `picture` is the hash of its content, or None."""

    id: str
    kind: str
    prompt: str
    picture: str | None


class Run:
    """An open run. Use it as a context manager, or call `close`.

    Attributes:
        path: The run's folder.
        sealed: Whether the file's hash was compared with the one of its last writer; True for a writer.
        doubtful: Whether no hash showed it intact when it was opened, also by a writer.
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, *, sealed: bool, doubtful: bool,
        end: Callable[[bool], None],
    ) -> None:  # fmt: skip
        self.path, self.sealed, self.doubtful = path, sealed, doubtful
        self._db, self._end = connection, end

    def __enter__(self) -> Run:
        return self

    def __exit__(self, _: object, error: BaseException | None, *__: object) -> None:
        damaged = self.doubtful and isinstance(error, DAMAGE)  # a sealed run is as its last writer left it
        self._end(not damaged)
        if damaged and not (self.sealed and isinstance(error, sqlite3.OperationalError)):  # a full disk
            raise LayeralignError(unreadable(self.path, error)) from error

    def check(self) -> None:
        """Read the file's whole structure; see `damage.check`."""
        check(self.path, self._db)

    def close(self) -> None:
        """Close the database; a writer also writes the file's hash, and lets other writers in."""
        self._end(True)

    # --- what the run is

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that affects an answer: model hashes, dtype, template, decoding, seed."""
        return dict(self._meta("identity"))

    @property
    def model(self) -> str:
        """The model's name as given; the identity has its hashes."""
        return str(self._meta("model"))

    @property
    def encoder(self) -> dict[str, Any]:
        """The exits of the model's encoder, as returned by `Exits.to_json`."""
        return dict(self._meta("encoder"))

    def add_config(self, config: Mapping[str, Any]) -> None:
        """Store the content of the model's config.json; the identity has its hash."""
        self._note("config", config)

    @property
    def reward(self) -> dict[str, Any] | None:
        """The record of the reward that the model's adapter was trained on; None if unknown."""
        return self._noted("reward")

    def note_reward(self, record: Mapping[str, Any]) -> None:
        """Store the record of the reward that the model's adapter was trained on."""
        self._note("reward", record)

    @property
    def trained_on(self) -> frozenset[str]:
        """Ids of the run's cases that the adapter was trained on, according to the adapter's record."""
        return frozenset((self._noted("trained_on") or {}).get("cases", ()))

    def note_trained_on(self, cases: Iterable[str]) -> None:
        """Add ids of cases that the model's adapter was trained on."""
        if more := {*cases} - self.trained_on:
            self._note("trained_on", {"cases": sorted(self.trained_on | more)})

    @property
    def asked(self) -> frozenset[int]:
        """Exits that scans were asked for; a stopped one may have no answer there. Empty in older runs."""
        return frozenset((self._noted("asked") or {}).get("exits", ()))

    def note_asked(self, exits: Iterable[int]) -> None:
        """Add exits that a scan is asked for."""
        self._note("asked", {"exits": sorted(self.asked.union(exits))})

    @property
    def sequential(self) -> dict[str, Any] | None:
        """The stopping rule of a sequential scan, from `note_sequential`; None if there was none."""
        return self._noted("sequential")

    def note_sequential(self, rule: Mapping[str, Any]) -> None:
        """Store the stopping rule of a sequential scan; a run stays sequential once this is set."""
        self._note("sequential", rule)

    def note_changed(self, why: str) -> None:
        """Store that the engine was changed while it answered; see `Results.changed`."""
        self._note("changed", {"why": why})

    def note_screen(self, found: Mapping[str, Any]) -> None:
        """Store the result of a screen, replacing an earlier one."""
        self._note("screen", found)

    def noted(self) -> dict[str, dict[str, Any]]:
        """All stored notes except model, identity and encoder, by key."""
        found = self._db.execute(
            "SELECT key, value FROM meta WHERE key NOT IN ('format', 'model', 'identity', 'encoder')"
        )
        return {key: dict(json.loads(value)) for key, value in found}

    def _noted(self, key: str) -> dict[str, Any] | None:
        found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else dict(json.loads(found[0]))

    def _note(self, key: str, value: Mapping[str, Any]) -> None:
        if self._noted(key) != value:  # a command that has nothing new to say does not write to the run
            with self._db:
                self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(dict(value))))

    @property
    def cost(self) -> dict[str, Any]:
        """The cost of the encoder's exits, from `layeralign.vlm.cost.record`; empty in older runs."""
        return self._noted("cost") or {}

    def add_cost(self, cost: Mapping[str, Any]) -> None:
        """Store the cost of the encoder's exits, unless it is stored already."""
        if not self.cost:
            self._note("cost", cost)

    def _meta(self, key: str) -> Any:
        return json.loads(self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])

    def sessions(self) -> list[dict[str, Any]]:
        """Sessions that added rows: start time, command, package versions, rows and seconds."""
        found = _dicts(self._db.execute("SELECT * FROM sessions ORDER BY started"))
        return [row | {"versions": json.loads(row["versions"])} for row in found]

    def add_session(self, started: str, command: str, versions: Mapping[str, str]) -> int:
        """Record the start of a session; returns its number for `add_answers`."""
        with self._db:
            made = self._db.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, 0, 0)", (started, command, json.dumps(dict(versions)))
            )
        return int(made.lastrowid or 0)

    # --- cases

    def add_cases(self, cases: Iterable[Case], anew: Collection[str] = ()) -> None:
        """Add new cases, and update known ones.

        A known case may change only its category, reference and facts, which no model sees. These are
        replaced, and the verdicts of judges of the kinds `anew` on that case are deleted; they are then open.

        Raises:
            LayeralignError: A known case has another prompt, picture, kind or control, or a sequential run's
                case has changed.
        """
        known, shown = self.case_hashes(), dict[str, tuple[object, ...]]()
        new: list[tuple[object, ...]] = []
        changed: list[tuple[object, ...]] = []
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
                shown = shown or self._shown()
                if shown[case.id] != about or self.sequential:
                    raise LayeralignError(
                        f"run {self.path}: case {case.id!r} differs from the run's case of that id; "
                        "use another --out, or give the changed case a new id"
                    )
                changed.append((case.sha256, case.category, case.reference, facts, case.id))
        with self._db:
            self._db.executemany("INSERT INTO cases VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", new)
            self._db.executemany(
                "UPDATE cases SET sha256 = ?, category = ?, reference = ?, facts = ? WHERE id = ?", changed
            )
            named = self._db.execute("SELECT name FROM judges").fetchall() if changed else []
            for judge in [name for (name,) in named if name.partition(":")[0] in anew]:
                ids = [(judge, id) for *_, id in changed]
                self._db.executemany('DELETE FROM verdicts WHERE judge = ? AND "case" = ?', ids)
                self._db.execute("UPDATE judges SET rows = 0 WHERE name = ?", (judge,))

    def _shown(self) -> dict[str, tuple[object, ...]]:
        """Case id -> prompt, kind, picture hash and control."""
        found = self._db.execute("SELECT id, prompt, kind, image_sha256, control FROM cases")
        return {id: tuple(about) for id, *about in found}

    def cases(self) -> Iterator[Case]:
        """Every case in order of addition, without its picture."""
        found = self._db.execute(
            "SELECT id, prompt, kind, category, reference, facts, control FROM cases ORDER BY number"
        )
        for id, prompt, kind, category, reference, facts, control in sharing(found):
            yield Case(id, prompt, kind, None, category, reference, dict(json.loads(facts)), control)

    def given(self) -> list[GivenCase]:
        """Every case that is not a control, in order of addition."""
        found = self._db.execute(
            "SELECT id, kind, prompt, image_sha256 FROM cases WHERE control = '' ORDER BY number"
        )
        return [GivenCase(*row) for row in sharing(found)]

    def pictures(self) -> list[tuple[str, str, str]]:
        """Case id, path and SHA-256 of every case's picture; the path is empty where it was no file."""
        return self._db.execute(
            "SELECT id, COALESCE(image, ''), image_sha256 FROM cases WHERE image_sha256 <> '' ORDER BY number"
        ).fetchall()

    def case_hashes(self) -> dict[str, str]:
        """Case id -> `Case.sha256`."""
        return dict(sharing(self._db.execute("SELECT id, sha256 FROM cases")))

    # --- answers

    def answered(self) -> Answered:
        """Which rows there are; cases' ids are shared, since a run has millions of rows."""
        ids: dict[str, str] = {}
        found: Answered = {}
        for case, exit, sample in self._db.execute('SELECT "case", exit, sample FROM answers'):
            found.setdefault((exit, sample), set()).add(ids.setdefault(case, case))
        return found

    def add_answers(self, rows: Iterable[Row], session: int = 0, seconds: float = 0.0) -> None:
        """Add rows in one transaction; existing rows are kept.

        Args:
            rows: The rows.
            session: Number from `add_session`; 0 for no session.
            seconds: Time that these rows took.
        """
        values = [(*r.key, r.answer, r.reasoning, r.tokens, r.finish_reason) for r in rows]
        with self._db:
            self._db.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            self._db.execute(
                "UPDATE sessions SET rows = rows + ?, seconds = seconds + ? WHERE rowid = ?",
                (len(values), seconds, session),
            )

    def unjudged(
        self, judge: str, *, invalid: bool = False, after: RowKey = ("", -1, -1), limit: int = -1
    ) -> list[tuple[RowKey, str]]:
        """Key and answer of the rows without a verdict of `judge`; with `invalid`, also of invalid verdicts.

        Rows without an answer (`NO_ANSWER`) are left out, since they are never judged. `after` is the key
        before the first row, and `limit` the number of rows, -1 for all.
        """
        keys = 'a."case", a.exit, a.sample'
        sql = f"SELECT {keys}, a.answer {_UNJUDGED} AND ({keys}) > (?, ?, ?) ORDER BY {keys} LIMIT ?"
        found = self._db.execute(sql, (judge, invalid, *NO_ANSWER, *after, limit))
        return [((case, exit, sample), answer) for case, exit, sample, answer in found]

    def count_unjudged(self, judge: str, *, invalid: bool = False) -> int:
        """Number of rows of `unjudged`."""
        sql = f"SELECT count(*) {_UNJUDGED}"
        return int(self._db.execute(sql, (judge, invalid, *NO_ANSWER)).fetchone()[0])

    # --- verdicts

    def ask_judge(self, name: str, *, again: bool = False) -> None:
        """Record that a judge was requested; it counts as unfinished until `end_judge`.

        Args:
            name: Name of the judge.
            again: Whether to delete the judge's record and verdicts first.
        """
        with self._db:
            if again:
                self._forget(name)
            self._db.execute("INSERT OR IGNORE INTO judges VALUES (?, '', 0)", (name,))

    def end_judge(self, name: str) -> None:
        """Record that a judge has judged every current row."""
        with self._db:
            self._db.execute(
                "UPDATE judges SET rows = (SELECT COUNT(*) FROM answers) WHERE name = ?", (name,)
            )

    def unfinished(self) -> dict[str, tuple[int, int]]:
        """Judges that have not judged every row: name -> (rows with a verdict, all rows).

        The judge `human` is left out, since people label only a sample.
        """
        (rows,) = self._db.execute("SELECT COUNT(*) FROM answers").fetchone()
        found = self._db.execute(
            "SELECT name, (SELECT COUNT(*) FROM verdicts WHERE judge = name) FROM judges "
            "WHERE rows < ? AND name != ? ORDER BY name",
            (rows, _PEOPLE),
        )
        return {name: (words, rows) for name, words in found}

    def add_judge(self, name: str, record: Mapping[str, Any]) -> None:
        """Store a judge's record before it judges.

        Raises:
            LayeralignError: A judge of that name with other files, revision or server has judged this run.
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
        """A judge's record from `add_judge`; empty if there is none."""
        found = self._db.execute("SELECT record FROM judges WHERE name = ?", (name,)).fetchone()
        return dict(json.loads(found[0])) if found and found[0] else {}

    def replace(self, judge: str, record: Mapping[str, Any], words: Iterable[tuple[RowKey, Any]]) -> None:
        """Replace a judge's record and all its verdicts, atomically."""
        with self._db:
            self._forget(judge)
            self._db.execute("INSERT INTO judges VALUES (?, ?, 0)", (judge, json.dumps(dict(record))))
            self._say(judge, words)

    def add_verdicts(self, judge: str, words: Iterable[tuple[RowKey, Any]]) -> None:
        """Add a judge's verdicts in one transaction, replacing earlier ones on the same rows."""
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
        """Reasons of a judge's invalid verdicts with their counts, most frequent first."""
        return self._db.execute(
            "SELECT why, COUNT(*) FROM verdicts WHERE judge = ? AND verdict = 'invalid' "
            "GROUP BY why ORDER BY 2 DESC, 1",
            (judge,),
        ).fetchall()

    def judges(self) -> list[str]:
        """Names of the judges with at least one verdict, sorted."""
        return [name for (name,) in self._db.execute("SELECT DISTINCT judge FROM verdicts ORDER BY judge")]

    def measures(self) -> list[tuple[str, str]]:
        """Judge and measure of every score, sorted."""
        return self._db.execute(
            "SELECT DISTINCT judge, key FROM verdicts, json_each(scores) ORDER BY judge, key"
        ).fetchall()

    def columns(self) -> Columns:
        """Every row with the verdicts of all judges, without answers."""
        from layeralign.runs.columns import read  # numpy, which most commands on a run do without

        return read(self._db)

    def answers(self) -> Iterator[tuple[RowKey, str]]:
        """Key and answer of every row; answers are private and untrusted text."""
        found = self._db.execute('SELECT "case", exit, sample, answer FROM answers')
        return (((case, exit, sample), answer) for case, exit, sample, answer in found)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every answer with its case and verdicts, for export; one case at a time is in memory.

        Answers are private and untrusted text.
        """
        cases = self._db.execute(
            'SELECT id AS "case", kind, category, control, prompt, image, reference '
            "FROM cases ORDER BY number"
        )
        for case in _dicts(cases):
            verdicts = self._verdicts(case["case"])
            answers = self._db.execute(
                "SELECT exit, sample, answer, reasoning, tokens, finish_reason FROM answers "
                'WHERE "case" = ? ORDER BY exit, sample',
                (case["case"],),
            )
            for row in _dicts(answers):
                key = row.pop("exit"), row.pop("sample")
                first = {"case": case["case"], "exit": key[0], "sample": key[1]}
                yield first | case | row | {"verdicts": verdicts.get(key, {})}

    def _verdicts(self, case: str) -> dict[tuple[int, int], dict[str, dict[str, Any]]]:
        """Exit and sample -> judge -> verdict, of one case."""
        made: dict[tuple[int, int], dict[str, dict[str, Any]]] = {}
        found = self._db.execute(
            "SELECT exit, sample, judge, verdict, refused, coherent, correct, scores FROM verdicts "
            'WHERE "case" = ? ORDER BY exit, sample, judge',
            (case,),
        )
        for exit, sample, judge, verdict, refused, coherent, correct, scores in found:
            said = verdict, _flag(refused), _flag(coherent), correct, json.loads(scores)
            made.setdefault((exit, sample), {})[judge] = dict(zip(SAID, said, strict=True))
        return made


def _dicts(found: sqlite3.Cursor) -> Iterator[dict[str, Any]]:
    names = [column for column, *_ in found.description]
    return (dict(zip(names, row, strict=True)) for row in found)


SAID = ("verdict", "refused", "coherent", "correct", "scores")
"""Exported fields of a verdict."""


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)
