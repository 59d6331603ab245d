"""Intervals and tests of shares of independent rows and pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import asin, sqrt

from scipy.stats import binomtest, norm

from layeralign.errors import LayeralignError

Z = float(norm.ppf(0.975))


def wilson(hits: int, n: int) -> tuple[float | None, float | None]:
    """Wilson's 95 % interval of a share of `hits` in `n`; (None, None) without observations."""
    return wilson_at(hits / n, n) if n else (None, None)


def wilson_at(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a `share` of `n` observations, which, unlike for scipy's, need not be whole.

    Clustered rows count as an effective number of rows.
    """
    middle = share + Z**2 / (2 * n)
    half = Z * sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    low, high = (middle - half) / (1 + Z**2 / n), (middle + half) / (1 + Z**2 / n)
    return (0.0 if share == 0 else max(0.0, low)), (1.0 if share == 1 else min(1.0, high))


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
    (low_a, high_a), (low_b, high_b) = wilson_at(p_after, n), wilson_at(p_before, n)
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


def cohens_h(one: float, other: float) -> float:
    """Effect size of two shares, `one` less `other`: 0.2 is small, 0.5 medium, 0.8 large.

    2 asin √one - 2 asin √other: Cohen 1988, Statistical Power Analysis, equation 6.2.1.

    Raises:
        LayeralignError: a share outside [0, 1].
    """
    check_shares(one=one, other=other)
    return 2 * asin(sqrt(one)) - 2 * asin(sqrt(other))


def check_shares(**shares: float) -> None:
    """Raise LayeralignError where a share is outside [0, 1]."""
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise LayeralignError(f"{name} has to lie between 0 and 1, got {value}")
