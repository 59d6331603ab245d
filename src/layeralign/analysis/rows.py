"""Rows of a run with the judgements that make its metrics, and pairs of the same cases on two sides."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layeralign.runs.columns import BORDERLINE, ROLES, Bytes, CaseColumns, Codes, Columns, Flags, distinct
from layeralign.stats.clusters import cluster
from layeralign.stats.paired import Pairs

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Judged:
    """The judgements that make the metrics of a run; every array has one entry per row of the run.

    Attributes:
        verdict: code of the verdict of the judge that makes the ASR (`layeralign.runs.columns.VERDICTS`);
            `not applicable` where it has none.
        refused, coherent, correct: the observations of that judge; where it has none, of the most trusted
            judge that has one; else NaN.
    """

    verdict: Bytes
    refused: Flags
    coherent: Flags
    correct: Flags

    def having(self, at: Codes, **said: NDArray[Any]) -> Judged:
        """Return the same judgements, with others at these rows."""
        changed = {name: getattr(self, name).copy() for name in said}
        for name, values in said.items():
            changed[name][at] = values
        return replace(self, **changed)


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a run, in the order of the run; every array has one entry per row.

    Attributes:
        columns: the rows of the whole run.
        judged: their judgements.
        at: where these rows are in `columns`.
    """

    columns: Columns
    judged: Judged
    at: Codes

    def __len__(self) -> int:
        return len(self.at)

    def where(self, mask: NDArray[Any]) -> Rows:
        """Return the rows of a mask, or at these positions."""
        return Rows(self.columns, self.judged, self.at[mask])

    def having(self, **said: NDArray[Any]) -> Rows:
        """Return the same rows with other verdicts or observations."""
        return replace(self, judged=self.judged.having(self.at, **said))

    @property
    def verdict(self) -> Bytes:
        """Code of the verdict that makes the ASR, see `Judged`."""
        return self.judged.verdict[self.at]

    @property
    def refused(self) -> Flags:
        """Whether the answer is a refusal, see `Judged`."""
        return self.judged.refused[self.at]

    @property
    def coherent(self) -> Flags:
        """Whether the answer is coherent, see `Judged`."""
        return self.judged.coherent[self.at]

    @property
    def correct(self) -> Flags:
        """How far the answer is correct, from 0 to 1, see `Judged`."""
        return self.judged.correct[self.at]

    def kind_is(self, kind: str) -> Mask:
        """Return whether the case of each row is of a kind."""
        role = self.role
        also = BORDERLINE if kind == "benign" else ROLES.index(kind)
        return np.isin(role, (ROLES.index(kind), also))

    def ids(self) -> list[str]:
        """Return the id of each row's case."""
        known = self.columns.cases.id
        return [known[case] for case in self.case.tolist()]

    @property
    def case(self) -> Codes:
        """Number of the row's case."""
        return self.columns.case[self.at]

    @property
    def exit(self) -> Codes:
        """The row's exit."""
        return self.columns.exit[self.at]

    @property
    def sample(self) -> Codes:
        """Number of the answer, from 0."""
        return self.columns.sample[self.at]

    @property
    def finish(self) -> Bytes:
        """Code of the finish reason."""
        return self.columns.finish[self.at]

    @property
    def role(self) -> Bytes:
        """Code of the case's role (`layeralign.runs.columns.ROLES`)."""
        return self.columns.cases.role[self.case]

    def case_in(self, ids: Collection[str]) -> Mask:
        """Return whether the case of each row is one of these."""
        named = np.array([id in ids for id in self.columns.cases.id], dtype=bool)
        return named[self.case]

    def control_is(self, control: str) -> Mask:
        """Return whether each row is of this control."""
        named = np.array([name == control for name in self.columns.cases.control], dtype=bool)
        return named[self.case]

    @property
    def original(self) -> Codes:
        """Number of the row's case, or of the case whose picture a control replaces."""
        return self.columns.cases.original[self.case]

    @property
    def prompts(self) -> Codes:
        """A number for each different prompt."""
        return self.columns.cases.prompts[self.case]

    @property
    def pictures(self) -> Codes:
        """A number for each different picture; a case without a picture has a number of its own."""
        return self.columns.cases.pictures[self.case]

    def verdicts(self, judge: str) -> Bytes:
        """Code of a judge's verdict; -1 where it has none."""
        return self.columns.verdicts[judge][self.at]

    def scores(self) -> Iterator[tuple[str, str, Flags]]:
        """Yield judge, measure and scores, sorted; NaN where a row has no score."""
        for (judge, measure), column in sorted(self.columns.scores.items()):
            yield judge, measure, column[self.at]


@dataclass(frozen=True, eq=False)
class Observations:
    """Rows, each with a flag or a degree from 0 to 1, or a score: [n] float64."""

    rows: Rows
    values: Flags

    def __len__(self) -> int:
        return len(self.values)


def observed(rows: Rows, values: Flags) -> Observations:
    """Return the rows that have a value."""
    there = ~np.isnan(values)
    return Observations(rows.where(there), values[there])


def flags(rows: Rows, values: Mask) -> Observations:
    """Return the rows with a yes or no each."""
    return Observations(rows, values.astype(np.float64))


RowsByExit = dict[int, Rows]


def by_exit(rows: Rows) -> RowsByExit:
    """Map each exit to its rows."""
    exits = rows.exit
    return {int(exit): rows.where(exits == exit) for exit in distinct(exits)}


def together(parts: Iterable[Rows]) -> Rows:
    """Return the rows of several parts of one run; there is at least one part, and no row is in two."""
    first, *others = every = list(parts)
    judged, names = first.judged, [field.name for field in fields(Judged)]
    for other in others:
        if other.judged is not first.judged:
            judged = judged.having(other.at, **{name: getattr(other, name) for name in names})
    return Rows(first.columns, judged, np.concatenate([one.at for one in every]))


@dataclass(frozen=True, eq=False)
class Matched:
    """Cases that two sides have in common; a side's value is the mean over its rows of that case.

    Attributes:
        before, after: [n] the values.
        cases: the cases of the run of `after`.
        case: [n] number of each case in `cases`.
        rows: the number of rows of each side.
    """

    before: Flags
    after: Flags
    cases: CaseColumns
    case: Codes
    rows: tuple[int, int]

    def pairs(self) -> Pairs:
        """Return the values with their clusters, the prompts and pictures of `after`."""
        clusters = cluster(self.cases.prompts[self.case], self.cases.pictures[self.case])
        return Pairs(self.before, self.after, clusters, min(self.rows))


def match(before: Observations, after: Observations, standing_for: Codes | None = None) -> Matched | None:
    """Match two sides by case, a control with the case whose picture it replaces; None without a common case.

    Args:
        before: one side.
        after: the other side, of the same run or of another one.
        standing_for: [cases] for each case of `before`, the number of the case of `after` that it is matched
            with; by default itself.
    """
    mine, theirs = before.rows.original, _cases(after.rows, before.rows.columns)
    if standing_for is not None:
        mine = standing_for[mine]
    sides = [_means(mine, before.values), _means(theirs, after.values)]
    common, mine, theirs = np.intersect1d(sides[0].key, sides[1].key, assume_unique=True, return_indices=True)
    if not len(common):
        return None
    means = [side.sum[at] / side.n[at] for side, at in zip(sides, (mine, theirs), strict=True)]
    rows = [int(side.n[at].sum()) for side, at in zip(sides, (mine, theirs), strict=True)]
    first = after.rows.case[sides[1].first[theirs]]
    return Matched(means[0], means[1], after.rows.columns.cases, first, (rows[0], rows[1]))


def joined(parts: Sequence[Matched]) -> Matched:
    """Return what was matched at several exits of the same runs; there is at least one part."""
    before, after, case = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("before", "after", "case")
    )
    rows = (sum(part.rows[0] for part in parts), sum(part.rows[1] for part in parts))
    return Matched(before, after, parts[0].cases, case, rows)


def pair(before: Observations, after: Observations, standing_for: Codes | None = None) -> Pairs | None:
    """Return the pairs of `match`."""
    found = match(before, after, standing_for)
    return found.pairs() if found else None


@dataclass(frozen=True, eq=False)
class _Means:
    """Keys, and of each key its first row, the sum of its values and their number."""

    key: Codes
    first: Codes
    sum: Flags
    n: NDArray[Any]


def _means(keys: Codes, values: Flags) -> _Means:
    known, first, of = np.unique(keys, return_index=True, return_inverse=True)
    there = known >= 0
    sums: Flags = np.bincount(of, weights=values, minlength=len(known)).astype(np.float64)
    n = np.bincount(of, minlength=len(known))
    return _Means(known[there], first[there], sums[there], n[there])


def _cases(rows: Rows, reference: Columns) -> Codes:
    """Return the number that the case of each row has in another run; -1 where that run lacks the case."""
    own = rows.columns.cases
    if own is reference.cases:
        return rows.original
    number = reference.cases.number
    return np.array([number.get(id, -1) for id in own.id], dtype=np.int64)[rows.original]
