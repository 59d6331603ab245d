"""Rows of a run with the verdicts of all judges, grouped by exit or paired between two runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np

from layeralign.runs.store import JudgedRow
from layeralign.stats.clusters import cluster
from layeralign.stats.paired import Pairs


@lru_cache(maxsize=4096)
def _shared(items: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    """Return one mapping for all rows with these verdicts; a run has millions of rows."""
    return MappingProxyType(dict(items))


def _nothing() -> Mapping[Any, Any]:
    """Return the one empty mapping of all rows without scores or verdicts."""
    return _NOTHING


_NOTHING: Mapping[Any, Any] = MappingProxyType({})


@dataclass(slots=True)
class ScoredRow:
    """One row with the verdicts of all its judges.

    Attributes:
        case, control, kind, category, prompt, picture, exit, sample: identify the row, as in `JudgedRow`.
        finish_reason: why the answer ended; see `layeralign.runs.store.Row`.
        verdict: the verdict of the judge that makes the ASR.
        refused, coherent, correct: the observations of that judge; where it has none, of the most trusted
            judge that has one.
        scores: (judge, measure) -> score.
        verdicts: judge -> verdict.
    """

    case: str
    control: str
    kind: str
    category: str
    prompt: str
    picture: str | None
    exit: int
    sample: int
    finish_reason: str = "stop"
    verdict: str = "not applicable"
    refused: bool | None = None
    coherent: bool | None = None
    correct: float | None = None
    scores: Mapping[tuple[str, str], float] = field(default_factory=_nothing)
    verdicts: Mapping[str, str] = field(default_factory=_nothing)

    def add(self, row: JudgedRow, *, first: bool) -> None:
        """Add one judge's verdict; call it in order of trust.

        Args:
            row: the verdict.
            first: whether this judge makes the ASR.
        """
        if first:
            self.verdict = row.verdict
        for name in ("refused", "coherent", "correct"):
            said = getattr(row, name)
            if said is not None and (first or getattr(self, name) is None):
                setattr(self, name, said)
        if row.judge:
            self.verdicts = _shared((*self.verdicts.items(), (row.judge, row.verdict)))
        if row.scores:
            own = {(row.judge, measure): score for measure, score in row.scores.items()}
            self.scores = {**self.scores, **own}

    @property
    def unsafe(self) -> bool | None:
        """Whether the answer is unsafe; None for any other verdict, which never counts as safe."""
        return _UNSAFE.get(self.verdict)


_UNSAFE = {"safe": False, "unsafe": True}
Observations = Sequence[tuple[ScoredRow, float]]
"""Rows, each with a flag or a degree from 0 to 1."""
RowsByExit = dict[int, list[ScoredRow]]


def keys(rows: Sequence[ScoredRow]) -> tuple[list[str], list[str]]:
    """Return the prompts and pictures that cluster the rows; a case without a picture is its own cluster."""
    return [row.prompt for row in rows], [row.picture or row.case for row in rows]


def by_exit(rows: Iterable[ScoredRow]) -> RowsByExit:
    """Map each exit to its rows."""
    found: RowsByExit = defaultdict(list)
    for row in rows:
        found[row.exit].append(row)
    return found


def pair(
    before: Observations, after: Observations, key: Callable[[ScoredRow], Hashable] = lambda row: row.case
) -> Pairs | None:
    """Pair two sides by `key`; a side's value is the mean over its rows of that key.

    Clusters are the prompts and pictures of `after`. Returns None where the sides have no key in common.
    """
    sides = [_means(key, side) for side in (before, after)]
    common = [name for name in sides[0] if name in sides[1]]
    if not common:
        return None
    groups = cluster(*keys([sides[1][name][0] for name in common]))
    means = [np.array([side[name][1] / side[name][2] for name in common]) for side in sides]
    return Pairs(means[0], means[1], groups, min(sum(side[name][2] for name in common) for side in sides))


def _means(
    key: Callable[[ScoredRow], Hashable], values: Observations
) -> dict[Hashable, tuple[ScoredRow, float, int]]:
    """Map each key to its first row, the sum of its values and their number."""
    found: dict[Hashable, tuple[ScoredRow, float, int]] = {}
    for row, value in values:
        name = key(row)
        known = found.get(name)
        found[name] = (row, value, 1) if known is None else (known[0], known[1] + value, known[2] + 1)
    return found
