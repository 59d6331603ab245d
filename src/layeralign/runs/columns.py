"""A run's rows as columns of numbers, on which analyses are arithmetic; a million rows take about 50 MB."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from layeralign._util.text import sharing
from layeralign.cases.case import Case, Kind, is_borderline

VERDICTS = ("safe", "unsafe", "invalid", "not applicable")
"""Verdicts by code."""
SAFE, UNSAFE, INVALID, NOT_APPLICABLE = range(4)
FINISH_REASONS = ("stop", "length", "reasoning", "non-finite")
"""Finish reasons by code; see `layeralign.runs.store.Row`."""
ROLES = ("harmful", "benign", "vqa", "borderline")
"""Roles of a case by code: its kind, or `borderline` for a benign case that looks harmful."""
HARMFUL, BENIGN, VQA, BORDERLINE = range(4)
_AT_ONCE = 10_000

Codes = NDArray[np.signedinteger[Any]]
"""Numbers of cases, exits or samples, one per row."""
Flags = NDArray[np.float64]
"""Observations, one per row: a number from 0 to 1, or NaN where there is none."""
Bytes = NDArray[np.int8]
"""Codes of a few words, one per row; -1 where there is none."""


@dataclass(frozen=True, eq=False)
class CaseColumns:
    """The cases of a run, in the order of their addition; the attributes have one entry per case.

    Attributes:
        id, control, kind, category, prompt, reference: as in `Case`.
        facts: as in `Case`, as JSON.
        picture: the hash of the picture's content, or None.
        sha256: the hash of everything that determines the case's answer or judgement.
    """

    id: Sequence[str]
    control: Sequence[str]
    kind: Sequence[str]
    category: Sequence[str]
    prompt: Sequence[str]
    reference: Sequence[str | None]
    facts: Sequence[str]
    picture: Sequence[str | None]
    sha256: Sequence[str]

    def __len__(self) -> int:
        return len(self.id)

    def made(self) -> Iterator[Case]:
        """Yield each case, without its picture."""
        every = zip(self.id, self.prompt, self.kind, self.category, self.reference, self.facts, self.control,
                    strict=True)  # fmt: skip
        for id, prompt, kind, category, reference, facts, control in every:
            yield Case(id, prompt, cast(Kind, kind), None, category, reference, _facts(facts), control)

    def fact(self, name: str) -> list[Any]:
        """Return one of the facts of each case; None where a case lacks it."""
        return [_facts(text).get(name) for text in self.facts]

    @cached_property
    def number(self) -> Mapping[str, int]:
        """Case id -> number of the case."""
        return {id: at for at, id in enumerate(self.id)}

    @cached_property
    def role(self) -> Bytes:
        """Code of each case's role, see `ROLES`."""
        both = zip(self.kind, self.category, strict=True)
        roles = ("borderline" if is_borderline(kind, category) else kind for kind, category in both)
        return np.array([ROLES.index(role) for role in roles], dtype=np.int8)

    @cached_property
    def is_control(self) -> NDArray[np.bool_]:
        """Whether each case is a control."""
        return np.array([bool(control) for control in self.control], dtype=bool)

    @cached_property
    def original(self) -> Codes:
        """Number of the case that each control replaces; of every other case, its own number."""
        both = enumerate(zip(self.id, self.control, strict=True))
        return np.array(
            [
                self.number.get(id.removesuffix(f"#{control}"), at) if control else at
                for at, (id, control) in both
            ],
            dtype=np.int64,
        )

    @cached_property
    def prompts(self) -> Codes:
        """A number for each different prompt."""
        return _numbered(self.prompt)

    @cached_property
    def pictures(self) -> Codes:
        """A number for each different picture; a case without a picture has a number of its own."""
        return _numbered([picture or ("none", at) for at, picture in enumerate(self.picture)])


@dataclass(frozen=True, eq=False)
class Columns:
    """The rows of a run in the order of cases, exits and samples; every array is [rows].

    Attributes:
        cases: the run's cases.
        case: number of the row's case.
        exit, sample: the row's exit and the number of the answer.
        finish: code of the finish reason, see `FINISH_REASONS`.
        verdicts: judge -> code of its verdict, see `VERDICTS`; -1 where it has none.
        refused, coherent, correct: judge -> its observations; a judge without any is absent.
        scores: (judge, measure) -> its scores, NaN where it has none.
    """

    cases: CaseColumns
    case: Codes
    exit: Codes
    sample: Codes
    finish: Bytes
    verdicts: Mapping[str, Bytes]
    refused: Mapping[str, Flags]
    coherent: Mapping[str, Flags]
    correct: Mapping[str, Flags]
    scores: Mapping[tuple[str, str], Flags]

    def __len__(self) -> int:
        return len(self.case)

    def keys(self, rows: NDArray[Any]) -> list[tuple[str, int, int]]:
        """Return case id, exit and sample of some rows."""
        ids, at = self.cases.id, self.case[rows].tolist()
        both = zip(at, self.exit[rows].tolist(), self.sample[rows].tolist(), strict=True)
        return [(ids[case], exit, sample) for case, exit, sample in both]


def distinct(values: Codes) -> Codes:
    """Return the different values, sorted; `np.unique` of one argument imports NumPy's masked arrays."""
    return np.unique(values, return_index=True)[0]


def read(db: sqlite3.Connection) -> Columns:
    """Read the rows of a run's database."""
    cases = _cases(db)
    case, exit, sample, finish = _sorted(db, cases)
    return Columns(cases, case, exit, sample, finish, **_judgements(db, cases, (case, exit, sample)))


def _cases(db: sqlite3.Connection) -> CaseColumns:
    """Read the cases.

    Raises:
        ValueError: Facts are no JSON object.
    """
    found = db.execute(
        "SELECT id, control, kind, category, prompt, reference, facts, image_sha256, sha256 FROM cases "
        "ORDER BY number"
    )
    cases = CaseColumns(*(zip(*rows, strict=True) if (rows := list(sharing(found))) else [()] * 9))
    for facts in set(cases.facts):
        _facts(facts)
    return cases


def _facts(text: str) -> Mapping[str, Any]:
    return {} if text == "{}" else dict(json.loads(text))


def _sorted(db: sqlite3.Connection, cases: CaseColumns) -> list[NDArray[Any]]:
    """Return case, exit, sample and finish reason of every row, in the order of the first three."""
    case, exit, sample, finish = (np.concatenate(parts) for parts in zip(*_answers(db, cases), strict=True))
    order = np.lexsort((sample, exit, case))
    return [column[order] for column in (case, exit, sample, finish)]


def _answers(db: sqlite3.Connection, cases: CaseColumns) -> Iterator[tuple[NDArray[Any], ...]]:
    """Yield parts of the table: case, exit, sample and finish reason.

    Raises:
        ValueError: An answer has no case, or an unknown finish reason.
    """
    yield tuple(np.zeros(0, dtype=kind) for kind in (np.int32, np.int32, np.int32, np.int8))
    asked = 'SELECT "case", exit, sample, finish_reason FROM answers'
    for names, exit, sample, reasons in _parts(db.execute(asked)):
        case, finish = _of(names, cases), _codes(reasons, FINISH_REASONS, -1)
        if (case < 0).any() or (finish < 0).any():
            raise ValueError("an answer has no case, or an unknown finish reason")
        yield case, np.array(exit, dtype=np.int32), np.array(sample, dtype=np.int32), finish


def _judgements(db: sqlite3.Connection, cases: CaseColumns, keys: Sequence[Codes]) -> dict[str, Any]:
    """Return the columns of the judges; `keys` are the rows' cases, exits and samples, sorted.

    Raises:
        ValueError: An observation is not from 0 to 1.
    """
    place = _Places(keys)
    verdicts: dict[str, Bytes] = {}
    said: dict[str, dict[str, Flags]] = {"refused": {}, "coherent": {}, "correct": {}}
    scores: dict[tuple[str, str], Flags] = {}
    asked = 'SELECT "case", exit, sample, judge, verdict, refused, coherent, correct, scores FROM verdicts'
    for names, exit, sample, judges, words, *observed, texts in _parts(db.execute(asked)):
        at = place.of(_of(names, cases), np.array(exit), np.array(sample))
        by, code = np.array(judges, dtype=object), _codes(words, VERDICTS, INVALID)
        for judge in dict.fromkeys(judges):
            mine = (by == judge) & (at >= 0)
            column = verdicts.setdefault(judge, np.full(len(place), -1, dtype=np.int8))
            column[at[mine]] = code[mine]
            for found, values in zip(said.values(), observed, strict=True):
                told = np.array(values, dtype=float)[mine]
                if not np.isnan(told).all():
                    if np.nanmin(told) < 0 or np.nanmax(told) > 1:
                        raise ValueError("an observation of a judge is not from 0 to 1")
                    found.setdefault(judge, np.full(len(place), np.nan))[at[mine]] = told
        for row, judge, text in zip(at.tolist(), judges, texts, strict=True):
            if text != "{}" and row >= 0:
                for measure, score in json.loads(text).items():
                    if (judge, measure) not in scores:
                        scores[judge, measure] = np.full(len(place), np.nan)
                    scores[judge, measure][row] = score
    return {"verdicts": dict(sorted(verdicts.items())), **said, "scores": scores}


class _Places:
    """Finds rows by case, exit and sample."""

    def __init__(self, keys: Sequence[Codes]) -> None:
        self._known = [distinct(column) for column in keys[1:]]
        self._keys = self._joined(*keys)

    def __len__(self) -> int:
        return len(self._keys)

    def of(self, case: Codes, exit: Codes, sample: Codes) -> Codes:
        """Return the place of each row; -1 where there is no such row."""
        if not len(self):
            return np.full(len(case), -1)
        keys = self._joined(case, exit, sample)
        at = np.searchsorted(self._keys, keys).clip(max=len(self) - 1)
        return np.where(self._keys[at] == keys, at, -1)

    def _joined(self, case: Codes, *rest: Codes) -> Codes:
        """Return one number for each row, in the order of case, exit and sample; -1 for an unknown one."""
        joined, there = case.astype(np.int64), case >= 0
        for known, column in zip(self._known, rest, strict=True):
            at = np.searchsorted(known, column).clip(max=max(0, len(known) - 1))
            there &= known[at] == column
            joined = joined * len(known) + at
        return np.where(there, joined, -1)


def _codes(words: Sequence[str], known: Sequence[str], otherwise: int) -> Bytes:
    """Return the code of each word; `otherwise` for an unknown one."""
    code = {word: at for at, word in enumerate(known)}
    return np.array([code.get(word, otherwise) for word in words], dtype=np.int8)


def _parts(cursor: sqlite3.Cursor) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the columns of some rows at a time."""
    while rows := cursor.fetchmany(_AT_ONCE):
        yield list(zip(*rows, strict=True))


def _of(names: Sequence[str], cases: CaseColumns) -> Codes:
    """Return the numbers of cases; -1 for an unknown one."""
    number = cases.number
    return np.array([number.get(name, -1) for name in names], dtype=np.int32)


def _numbered(keys: Sequence[Any]) -> Codes:
    """Return a number for each different key, from 0, in the order of first occurrence."""
    found: dict[Any, int] = {}
    return np.array([found.setdefault(key, len(found)) for key in keys], dtype=np.int64)
