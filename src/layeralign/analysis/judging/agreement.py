"""Agreement between the judges of a run: Cohen's kappa on harmful rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from layeralign.analysis.rows import ScoredRow, keys
from layeralign.judges.kinds import trusted
from layeralign.stats.kappa import agreement

_NO_VERDICT = {None, "not applicable"}


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


def agreements(rows: Iterable[ScoredRow], *, fixed: bool) -> tuple[JudgePair, ...]:
    """Return the agreement of every pair of judges with verdicts on the same harmful rows.

    Args:
        rows: rows of a run.
        fixed: whether the number of rows was fixed before the scan; otherwise kappa has no interval.

    Returns:
        The pairs, the most trusted judges first.
    """
    asked = [row for row in rows if row.kind == "harmful"]
    judges = {
        name for row in asked for name, verdict in row.verdicts.items() if verdict in ("safe", "unsafe")
    }
    pairs = []
    for one, other in combinations(trusted(judges), 2):
        both = [row for row in asked if not {row.verdicts.get(one), row.verdicts.get(other)} & _NO_VERDICT]
        mine, theirs = ([row.verdicts[name] for row in both] for name in (one, other))
        found = agreement(mine, theirs, *keys(both))
        if found.n:
            confusion = tuple((*labels, count) for labels, count in sorted(found.counts.items()) if count)
            ends = (found.low, found.high) if fixed else (None, None)
            pairs.append(JudgePair(one, other, found.n, found.kappa, *ends, confusion))
    return tuple(pairs)
