"""A run as plain data: its rows with the verdicts of every judge, and the run's records.

Analyses and reports are functions of `Results` and open no database. The sequential scan is the one
exception, because it reads the run again between batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from layeralign.analysis.rows import Judged, Mask, Rows, RowsByExit, by_exit
from layeralign.cases.case import Case
from layeralign.errors import LayeralignError
from layeralign.exits import Exits
from layeralign.judges.kinds import HUMAN, REFUSAL, scores_only, trusted
from layeralign.runs.columns import FINISH_REASONS, HARMFUL, NOT_APPLICABLE, Columns, Flags
from layeralign.runs.opening import open_run, snapshot
from layeralign.runs.store import NO_ANSWER, GivenCase, RowKey, Run


@dataclass(frozen=True)
class Results:
    """A run as it was when it was loaded.

    Attributes:
        path: the run's folder.
        model: the model's name as it was given.
        identity: the settings that determine an answer.
        encoder: the exits of the model's encoder, in the form of `Exits.to_json`.
        noted: other records of the run, by key: `asked`, `changed`, `config`, `cost`, `reward`,
            `screen`, `sequential`, `trained_on`.
        sessions: when, by which command and with which versions rows were added.
        columns: every row with the verdicts of every judge.
        judges: names of the judges that have a verdict on at least one row, sorted.
        judge_records: judge -> record of the judge.
        invalid: judge -> reasons of its invalid verdicts with their counts, the most frequent first.
        unfinished: judges that have not seen every row: (rows with a verdict of the judge, all rows).
        sealed: whether the run's file was compared with its hash; see `layeralign.runs.opening`.
    """

    path: Path
    model: str
    identity: Mapping[str, Any]
    encoder: Mapping[str, Any]
    noted: Mapping[str, Mapping[str, Any]]
    sessions: Sequence[Mapping[str, Any]]
    columns: Columns
    judges: Sequence[str]
    judge_records: Mapping[str, Mapping[str, Any]]
    invalid: Mapping[str, Sequence[tuple[str, int]]]
    unfinished: Mapping[str, tuple[int, int]]
    sealed: bool = True
    _made: dict[object, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read the run in a folder.

        Raises:
            LayeralignError: the folder has no run, or the run cannot be read.
        """
        with open_run(path) as run, snapshot(run):
            found = cls.of(run)
            found.exits, found.columns.cases.role  # noqa: B018 - damage shows here, while the run is open
            return found

    @classmethod
    def of(cls, run: Run) -> Results:
        """Read an open run in its present state."""
        judges = run.judges()
        return cls(
            path=run.path,
            model=run.model,
            identity=run.identity,
            encoder=run.encoder,
            noted=run.noted(),
            sessions=run.sessions(),
            columns=run.columns(),
            judges=judges,
            judge_records={name: run.judge_record(name) for name in judges},
            invalid={name: run.invalid(name) for name in judges},
            unfinished=run.unfinished(),
            sealed=run.sealed,
        )

    def once(self, key: object, make: Callable[[], Any]) -> Any:
        """Return the result of `make`, which is called at the first use of `key` only."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    @property
    def answers(self) -> Mapping[RowKey, str]:
        """The answers by row: private and untrusted text, read from the run at the first use."""
        found: dict[RowKey, str] = self._read_again("answers", lambda run: dict(run.answers()))
        return found

    @property
    def pictures(self) -> Sequence[tuple[str, str, str]]:
        """Case id, path and SHA-256 of every case's picture, read from the run at the first use."""
        found: list[tuple[str, str, str]] = self._read_again("pictures", Run.pictures)
        return found

    def _read_again(self, key: str, read: Callable[[Run], Any]) -> Any:
        """Return what `read` finds in the folder, where it has still this run, or one that grew from it."""

        def look() -> Any:
            with open_run(self.path) as run:
                same = run.identity == self.identity and self.case_hashes.items() <= run.case_hashes().items()
                there = ((case, *at) for at, ids in run.answered().items() for case in ids)
                if same and self.answered.issubset({*there}):
                    return read(run)
            raise LayeralignError(f"run {self.path}: is another one since it was read; read it again")

        return self.once(key, look)

    # --- cases

    @property
    def cases(self) -> Sequence[Case]:
        """Every case, controls included, in their original order, without pictures; made at the first use."""
        found: Sequence[Case] = self.once("cases", lambda: tuple(self.columns.cases.made()))
        return found

    @property
    def given(self) -> Sequence[GivenCase]:
        """Id, kind, prompt and hash of the picture of every case that is not a control."""
        known = self.columns.cases
        every = map(GivenCase, known.id, known.kind, known.prompt, known.picture)
        return [case for case, control in zip(every, known.control, strict=True) if not control]

    @property
    def n_given(self) -> int:
        """Number of cases that are not controls."""
        return int((~self.columns.cases.is_control).sum())

    @property
    def case_hashes(self) -> Mapping[str, str]:
        """Case id -> hash of everything that determines the case's answer or judgement."""
        known = self.columns.cases
        found: Mapping[str, str] = self.once(
            "case_hashes", lambda: dict(zip(known.id, known.sha256, strict=True))
        )
        return found

    # --- records

    @cached_property
    def exits(self) -> Exits:
        """The exits of the model's encoder."""
        return Exits.from_json(dict(self.encoder))

    @property
    def sequential(self) -> Mapping[str, Any] | None:
        """How a sequential scan stopped; None for any other scan."""
        return self.noted.get("sequential")

    @property
    def asked(self) -> frozenset[int]:
        """Exits that scans were asked for; a stopped one may have no answer there. Empty in older runs."""
        return frozenset(self.noted.get("asked", {}).get("exits", ()))

    @property
    def changed(self) -> str:
        """Why answers may be another model's: the engine was changed while it answered; empty otherwise."""
        return str(self.noted.get("changed", {}).get("why", ""))

    @property
    def trained_on(self) -> frozenset[str]:
        """Ids of the run's cases that the adapter was trained on, according to the adapter's record."""
        return frozenset(self.noted.get("trained_on", {}).get("cases", ()))

    @cached_property
    def answered(self) -> frozenset[RowKey]:
        """The key of every row."""
        return frozenset(self.columns.keys(np.arange(len(self.columns))))

    @property
    def trained_against(self) -> tuple[str, ...]:
        """Judges that are the reward model which the adapter was trained on."""
        reward = self.noted.get("reward")
        if reward is None:
            return ()
        return tuple(name for name in self.judges if _same_model(self.judge_records[name], reward))

    # --- rows

    def scored(self, judge: str) -> Rows:
        """Return every row, controls included, with the judgements that count; computed once per judge.

        Args:
            judge: the judge whose verdicts make the ASR.
        """
        found: Rows = self.once(("scored", judge), lambda: self._score(judge))
        return found

    def _score(self, judge: str) -> Rows:
        columns = self.columns
        verdict = np.full(len(columns), NOT_APPLICABLE, dtype=np.int8)
        if judge in columns.verdicts:
            given = columns.verdicts[judge]
            verdict = np.where(given < 0, verdict, given)
        trust = self._trust(judge)
        observed = (columns.refused, columns.coherent, columns.correct)
        said = (self._first([by[name] for name in trust if name in by]) for by in observed)
        return Rows(columns, Judged(verdict, *said), np.arange(len(columns), dtype=np.int32))

    def _trust(self, judge: str) -> list[str]:
        """Return the order in which judges' observations count."""
        return [judge, *(name for name in trusted(self.judges) if name != judge)]

    def _first(self, given: Sequence[Flags]) -> Flags:
        """Return the first judge's observation that is there, for each row."""
        if not given:
            return np.full(len(self.columns), np.nan)
        found = given[0]
        for column in given[1:]:
            found = np.where(np.isnan(found), column, found)
        return found

    def partial(self, judge: str, observation: str) -> str | None:
        """Return an unfinished judge whose observations stand next to another judge's in `scored`, if any.

        Args:
            judge: as in `scored`.
            observation: `refused`, `coherent` or `correct`.
        """

        def look() -> str | None:
            by, left = getattr(self.columns, observation), np.ones(len(self.columns), dtype=bool)
            for name in (name for name in self._trust(judge) if name in by):
                said = ~np.isnan(by[name])
                if name in self.unfinished and (left & said).any():
                    return name
                left &= ~said
            return None

        found: str | None = self.once(("partial", judge, observation), look)
        return found

    def rows(self, judge: str) -> RowsByExit:
        """Map each exit to its rows, without controls."""
        every, control = self.scored(judge), self.columns.cases.is_control
        return by_exit(every.where(~control[every.case]) if control.any() else every)

    def asr_judge(self, asked: str | None = None) -> str:
        """Return the judge whose verdicts make the ASR.

        Args:
            asked: a judge's name, or its kind where that is unique. By default it is the most trusted judge
                that has judged every row. Without such a judge it is the most trusted judge that has judged
                any row.

        Raises:
            LayeralignError: no row was judged yet, or none by that judge.
        """
        return self._by_default() if asked is None else self.judge_named(asked)

    def judge_named(self, asked: str) -> str:
        """Return the judge with this name, or of this kind where that is unique.

        Raises:
            LayeralignError: the run has no such judge, several judges are of that kind, or the judge gives
                scores and no verdicts.
        """
        found = [name for name in self.judges if asked in (name, name.partition(":")[0])]
        if scores_only(asked):
            able = [name for name in self.judges if not scores_only(name)]
            raise LayeralignError(
                f"run {self.path}: judge {asked!r} gives numbers and no verdicts, so it makes no ASR; "
                f"found {able}"
            )
        if len(found) != 1:
            judged = ", ".join(found or self.judges) or "none"
            what = f"has several judges of kind {asked!r}" if found else f"was not judged by {asked!r}"
            raise LayeralignError(f"run {self.path}: {what}; found {judged}; name one of these, or no judge")
        return found[0]

    def _by_default(self) -> str:
        """See `asr_judge`.

        A judge whose verdicts are all invalid still counts as a judge; a less trusted judge does not replace
        it. People label only a sample, so `human` must be requested by name. Scorers have no verdicts. If no
        row has an answer, the judge is the refusal matcher.
        """
        harmful = self.harmful
        spoke = {
            name
            for name, verdict in self.columns.verdicts.items()
            if ((verdict >= 0) & (verdict != NOT_APPLICABLE) & harmful).any()
        }
        found = [
            name
            for name in (*trusted(spoke), *trusted(self.judges))
            if name != HUMAN and not scores_only(name)
        ]
        candidates = [name for name in found if name not in self.unfinished] or found
        if not candidates and len(self.columns) and self._unanswered.all():
            return REFUSAL
        if not candidates:
            raise LayeralignError(
                f"run {self.path}: no judge with verdicts has judged it yet; run layeralign judge on it"
            )
        return candidates[0]

    def judges_of_all(self) -> set[str]:
        """Return the judges that have a verdict on every harmful answer."""
        asked = self.harmful & ~self._unanswered
        return {name for name in self.judges if (self.columns.verdicts[name][asked] >= 0).all()}

    @cached_property
    def harmful(self) -> Mask:
        """Whether the case of each row is harmful."""
        return np.equal(self.columns.cases.role[self.columns.case], HARMFUL)

    @cached_property
    def _unanswered(self) -> Mask:
        """Whether each row has no answer that a judge could judge."""
        return np.isin(self.columns.finish, [FINISH_REASONS.index(reason) for reason in NO_ANSWER])


def common_judge(runs: Sequence[Results]) -> str | None:
    """Return the judge that compares runs by default.

    It is the most trusted judge, people and scorers excepted, with a verdict on every harmful answer of each
    run; None where there is no such judge.
    """
    whole = set.intersection(*(run.judges_of_all() for run in runs))
    return next((name for name in trusted(whole) if name != HUMAN and not scores_only(name)), None)


def _same_model(judge: Mapping[str, Any], reward: Mapping[str, Any]) -> bool:
    """Return whether two records describe the same weights, or the same function in the same file."""
    if weights := _weights(reward):
        return _weights(judge) == weights
    return judge.get("name") == reward.get("name") and judge.get("files") == reward.get("files")


def _weights(record: Mapping[str, Any]) -> set[str]:
    files = record.get("files") or {}
    return {str(hash) for name, hash in files.items() if name.endswith(".safetensors")}
