"""Shares of independent rows: Wilson's interval and effect size."""

from __future__ import annotations

from math import asin, sqrt
from statistics import NormalDist

from layeralign.errors import LayeralignError

Z = NormalDist().inv_cdf(0.975)


def wilson(hits: int, n: int) -> tuple[float | None, float | None]:
    """Return Wilson's 95 % interval of `hits` in `n`; (None, None) without observations."""
    return wilson_at(hits / n, n) if n else (None, None)


def wilson_at(share: float, n: float) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a `share` of `n` observations.

    `n` need not be an integer, unlike in scipy: clustered rows count as an effective number of rows.
    """
    middle = share + Z**2 / (2 * n)
    half = Z * sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    low, high = (middle - half) / (1 + Z**2 / n), (middle + half) / (1 + Z**2 / n)
    return (0.0 if share == 0 else max(0.0, low)), (1.0 if share == 1 else min(1.0, high))


def cohens_h(one: float, other: float) -> float:
    """Return Cohen's h of two shares, `one` minus `other`: 0.2 is small, 0.5 medium, 0.8 large.

    2 asin √one - 2 asin √other: Cohen 1988, Statistical Power Analysis, equation 6.2.1.

    Raises:
        LayeralignError: a share is outside [0, 1].
    """
    check_shares(one=one, other=other)
    return 2 * asin(sqrt(one)) - 2 * asin(sqrt(other))


def check_shares(**shares: float) -> None:
    """Raise LayeralignError if a share is outside [0, 1]."""
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise LayeralignError(f"{name} has to lie between 0 and 1, got {value}")
