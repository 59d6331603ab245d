"""Intervals and tests, thin names over scipy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scipy.stats import binomtest


def wilson(hits: int, n: int) -> tuple[float | None, float | None]:
    """Wilson's 95 % interval of a share of `hits` in `n`; (None, None) without observations."""
    if n == 0:
        return None, None
    interval = binomtest(hits, n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


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
