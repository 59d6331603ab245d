"""Intervals and tests, thin names over scipy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from scipy.stats import binomtest


def wilson(hits: int, n: int) -> tuple[float | None, float | None]:
    """Wilson's 95 % interval of a share of `hits` in `n`; (None, None) without observations."""
    if n == 0:
        return None, None
    interval = binomtest(hits, n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Change:
    """How a share changed from one run to another, on the same cases.

    Attributes:
        n: cases that both runs judged.
        before, after: shares of these.
        difference: after - before.
        low, high: its 95 % interval, for paired observations: Newcombe 1998 (Statistics in Medicine 17,
            2635-2650), method 10. It does not shrink to a point where no case changed.
    """

    n: int
    before: float
    after: float
    difference: float
    low: float
    high: float


def change(before: Mapping[str, bool], after: Mapping[str, bool]) -> Change | None:
    """The change of a share, paired by key, on the keys that both have; None without any."""
    pairs = [(after[key], before[key]) for key in before if key in after]
    if not pairs:
        return None
    both, gained, lost, neither = (
        pairs.count(p) for p in ((True, True), (True, False), (False, True), (False, False))
    )
    n = len(pairs)
    p_after, p_before = (both + gained) / n, (both + lost) / n
    (low_a, high_a), (low_b, high_b) = (
        binomtest(hits, n).proportion_ci(method="wilson") for hits in (both + gained, both + lost)
    )
    sides = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    cross = both * neither - gained * lost
    phi = 0.0 if sides == 0 else (max(cross - n / 2, 0) if cross > 0 else cross) / sqrt(sides)
    down, up = p_after - low_a, high_b - p_before
    left = sqrt(max(0.0, down**2 - 2 * phi * down * up + up**2))
    down, up = p_before - low_b, high_a - p_after
    right = sqrt(max(0.0, up**2 - 2 * phi * down * up + down**2))
    difference = p_after - p_before
    return Change(n, p_before, p_after, difference, difference - left, difference + right)


def share(flags: Sequence[bool]) -> float | None:
    """Share of true flags; None without observations."""
    return sum(flags) / len(flags) if flags else None


def p_worse(here: Mapping[str, bool], there: Mapping[str, bool]) -> float | None:
    """One-sided exact McNemar test that `here` is true more often than `there`.

    Paired by key (a case), on the keys that both have; None without any. Only the pairs that
    differ tell (McNemar 1947); under no difference each falls either way with probability 1/2.
    """
    pairs = [(here[key], there[key]) for key in here if key in there]
    if not pairs:
        return None
    more = sum(a and not b for a, b in pairs)
    fewer = sum(b and not a for a, b in pairs)
    if more + fewer == 0:
        return 1.0
    return float(binomtest(more, more + fewer, 0.5, alternative="greater").pvalue)
