"""One run, read once: its rows with every judge's verdict, and what the run records, as plain data.

Whatever analyses or shows a run is a function of `Results` and opens no database. The one exception is the
sequential scan, which has to look again between batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from layeralign.analysis.rows import RowsByExit, ScoredRow, by_exit
from layeralign.cases.case import Case
from layeralign.errors import LayeralignError
from layeralign.exits import Exits
from layeralign.judges.kinds import HUMAN, REFUSAL, scores_only, trusted
from layeralign.runs.store import NO_ANSWER, GivenCase, JudgedRow, RowKey, Run, open_run


@dataclass(frozen=True)
class Results:
    """A run as it was when it was loaded.

    Attributes:
        path: its folder.
        model: the model's name as it was given.
        identity: what shapes an answer.
        encoder: the exits of the model's encoder, as `Exits.to_json` has them.
        noted: what else the run records, by key: `config`, `cost`, `reward`, `screen`, `sequential`,
            `trained_on`.
        sessions: when, by which command and with which versions rows were added.
        cases: every case, controls too, in the order in which they came, without pictures.
        case_hashes: case id -> hash of everything that shapes its answer or its judgement.
        judged: every verdict of every row, rows together, in the order of the cases; a row without any
        verdict
            has one of judge "".
        judges: names of the judges that have a verdict on some row, sorted.
        judge_records: what each judge is.
        invalid: judge -> reasons why its verdicts are invalid, with how often, the most frequent first.
        unfinished: judges that have not seen every row: (rows with a verdict of theirs, all rows).
    """

    path: Path
    model: str
    identity: Mapping[str, Any]
    encoder: Mapping[str, Any]
    noted: Mapping[str, Mapping[str, Any]]
    sessions: Sequence[Mapping[str, Any]]
    cases: Sequence[Case]
    given: Sequence[GivenCase]
    case_hashes: Mapping[str, str]
    judged: Sequence[JudgedRow]
    judges: Sequence[str]
    judge_records: Mapping[str, Mapping[str, Any]]
    invalid: Mapping[str, Sequence[tuple[str, int]]]
    unfinished: Mapping[str, tuple[int, int]]
    _made: dict[object, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read the run in a folder.

        Raises:
            LayeralignError: there is none, or it cannot be read.
        """
        with open_run(path) as run:
            return cls.of(run)

    @classmethod
    def of(cls, run: Run) -> Results:
        """Read an open run, as it is now."""
        judges = run.judges()
        return cls(
            path=run.path,
            model=run.model,
            identity=run.identity,
            encoder=run.encoder,
            noted=run.noted(),
            sessions=run.sessions(),
            cases=tuple(run.cases()),
            given=tuple(run.given()),
            case_hashes=run.case_hashes(),
            judged=tuple(run.judged()),
            judges=judges,
            judge_records={name: run.judge_record(name) for name in judges},
            invalid={name: run.invalid(name) for name in judges},
            unfinished=run.unfinished(),
        )

    def once(self, key: object, make: Callable[[], Any]) -> Any:
        """What `make` gives, made when it is first asked for: a run is summed up once."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    @property
    def answers(self) -> Mapping[RowKey, str]:
        """The answers, by row: private and untrusted text. Read from the run at the first use."""

        def read() -> dict[RowKey, str]:
            with open_run(self.path) as run:
                return {(row["case"], row["exit"], row["sample"]): row["answer"] for row in run.rows()}

        found: dict[RowKey, str] = self.once("answers", read)
        return found

    # --- what it records

    @cached_property
    def exits(self) -> Exits:
        """The exits of the model's encoder."""
        return Exits.from_json(dict(self.encoder))

    @property
    def sequential(self) -> Mapping[str, Any] | None:
        """How a sequential scan stopped asking; None where there was none."""
        return self.noted.get("sequential")

    @property
    def trained_on(self) -> frozenset[str]:
        """Ids of the run's cases that the model's adapter was trained on, as far as its record tells."""
        return frozenset(self.noted.get("trained_on", {}).get("cases", ()))

    @cached_property
    def answered(self) -> frozenset[RowKey]:
        """The key of every row."""
        return frozenset(row.key for row in self.judged)

    @property
    def trained_against(self) -> tuple[str, ...]:
        """Judges that are the reward model which the adapter was trained on."""
        reward = self.noted.get("reward")
        if reward is None:
            return ()
        return tuple(name for name in self.judges if _same_model(self.judge_records[name], reward))

    # --- its rows

    def scored(self, judge: str) -> list[ScoredRow]:
        """Every row, those of controls too, with all verdicts; `judge` makes the ASR. Made once per judge."""
        found: list[ScoredRow] = self.once(("scored", judge), lambda: self._score(judge))
        return found

    def _score(self, judge: str) -> list[ScoredRow]:
        trust = {name: at for at, name in enumerate(("", *trusted(self.judges)))}
        found = []
        for _, verdicts in groupby(self.judged, key=lambda row: row.key):
            by_trust = sorted(verdicts, key=lambda row: trust[row.judge])
            row = by_trust[0]
            about = row.case, row.control, row.kind, row.category, row.prompt, row.picture
            one = ScoredRow(*about, row.exit, row.sample, row.finish_reason)
            for row in by_trust:
                one.add(row, first=row.judge == judge)
            found.append(one)
        return found

    def rows(self, judge: str) -> RowsByExit:
        """Exit -> its rows, controls left out."""
        return by_exit(row for row in self.scored(judge) if not row.control)

    def asr_judge(self, asked: str | None = None) -> str:
        """Whose verdicts make the ASR.

        Args:
            asked: a judge's name, or its kind where that is enough. By default the most trusted judge that
            has
                judged every row, and where there is none, the most trusted that has judged any.

        Raises:
            LayeralignError: nothing was judged yet, or not by that judge.
        """
        return self._by_default() if asked is None else self.judge_named(asked)

    def judge_named(self, asked: str) -> str:
        """The judge with verdicts that was asked for, by its name or by its kind where that is enough.

        Raises:
            LayeralignError: there is none, several are of that kind, or it gives numbers and no verdicts.
        """
        found = [name for name in self.judges if asked in (name, name.partition(":")[0])]
        if scores_only(asked):
            able = [name for name in self.judges if not scores_only(name)]
            raise LayeralignError(
                f"run {self.path}: judge {asked!r} gives numbers and no verdicts, so it makes no ASR; "
                f"found {able}"
            )
        if len(found) != 1:
            several = f"several of that kind, {found}"
            what = several if found else f"none of judge {asked!r}; found {list(self.judges)}"
            raise LayeralignError(f"run {self.path}: has verdicts of {what}")
        return found[0]

    def _by_default(self) -> str:
        """See `asr_judge`.

        A judge whose verdicts are all invalid has still judged; a less trusted judge does not take its place.
        People label only a sample, so `human` has to be asked for; scorers have no verdicts. Where no row has
        an answer, the judge is the refusal matcher.
        """
        spoke = {
            row.judge for row in self.judged if row.kind == "harmful" and row.verdict != "not applicable"
        }
        found = [
            name
            for name in (*trusted(spoke), *trusted(self.judges))
            if name != HUMAN and not scores_only(name)
        ]
        candidates = [name for name in found if name not in self.unfinished] or found
        if not candidates and self.judged and all(row.finish_reason in NO_ANSWER for row in self.judged):
            return REFUSAL
        if not candidates:
            raise LayeralignError(
                f"run {self.path}: no judge with verdicts has judged it yet; run layeralign judge on it"
            )
        return candidates[0]

    def judges_of_all(self) -> set[str]:
        """The judges that have a verdict on every harmful answer."""
        found = set(self.judges)
        harmful = (row for row in self.judged if row.kind == "harmful")
        for (*_, why), verdicts in groupby(harmful, key=lambda row: (*row.key, row.finish_reason)):
            if why not in NO_ANSWER:
                found &= {row.judge for row in verdicts}
        return found


def common_judge(runs: Sequence[Results]) -> str | None:
    """Whose verdicts runs are compared by, where none is asked for.

    The most trusted judge that has a verdict on every harmful answer of each run; people and scorers never.
    None where there is no such judge.
    """
    whole = set.intersection(*(run.judges_of_all() for run in runs))
    return next((name for name in trusted(whole) if name != HUMAN and not scores_only(name)), None)


def _same_model(judge: Mapping[str, Any], reward: Mapping[str, Any]) -> bool:
    """Whether two records are of one model: of the same weights, or the same function in the same file."""
    if weights := _weights(reward):
        return _weights(judge) == weights
    return judge.get("name") == reward.get("name") and judge.get("files") == reward.get("files")


def _weights(record: Mapping[str, Any]) -> set[str]:
    files = record.get("files") or {}
    return {str(hash) for name, hash in files.items() if name.endswith(".safetensors")}
