"""Agreement between the judges of a run: Cohen's kappa on harmful rows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from layeralign.analysis.rows import Mask, Rows
from layeralign.judges.kinds import trusted
from layeralign.runs.columns import HARMFUL, INVALID, UNSAFE, VERDICTS, Bytes
from layeralign.stats.kappa import agreement


@dataclass(frozen=True)
class JudgePair:
    """Agreement of two judges on the harmful rows that both have judged.

    Attributes:
        one, other: the judges.
        n: the number of rows.
        kappa, low, high: Cohen's κ with its 95 % interval, for prompts and pictures drawn from a population;
            None where both judges gave one label only. See `layeralign.stats.kappa`.
        confusion: the count of each pair of verdicts: (of `one`, of `other`, rows).
    """

    one: str
    other: str
    n: int
    kappa: float | None
    low: float | None
    high: float | None
    confusion: tuple[tuple[str, str, int], ...]


def agreements(rows: Rows, *, fixed: bool) -> tuple[JudgePair, ...]:
    """Return the agreement of every pair of judges with verdicts on the same harmful rows.

    Args:
        rows: rows of a run.
        fixed: whether the number of rows was fixed before the scan; otherwise kappa has no interval.

    Returns:
        The pairs, the most trusted judges first.
    """
    asked = rows.where(rows.role == HARMFUL)
    said = {judge: asked.verdicts(judge) for judge in asked.columns.verdicts}
    judges = [judge for judge, code in said.items() if _in(code, UNSAFE).any()]
    pairs = []
    for one, other in combinations(trusted(judges), 2):
        both = _in(said[one], INVALID) & _in(said[other], INVALID)
        mine, theirs = ([VERDICTS[code] for code in said[name][both].tolist()] for name in (one, other))
        shared = asked.where(both)
        found = agreement(mine, theirs, shared.prompts, shared.pictures)
        if found.n:
            confusion = tuple((*labels, count) for labels, count in sorted(found.counts.items()) if count)
            ends = (found.low, found.high) if fixed else (None, None)
            pairs.append(JudgePair(one, other, found.n, found.kappa, *ends, confusion))
    return tuple(pairs)


def _in(code: Bytes, last: int) -> Mask:
    """Return whether each verdict is one of the first codes, up to `last`."""
    return (code >= 0) & (code <= last)
