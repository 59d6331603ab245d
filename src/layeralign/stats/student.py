"""Quantiles of Student's t. To import `scipy.special` takes longer than most commands run."""

from __future__ import annotations

from functools import lru_cache
from math import exp, lgamma, log, log1p, pi
from statistics import NormalDist

_SMALL = 1e-300


@lru_cache(maxsize=10_000)  # the metrics of one exit are about the same rows
def student(df: float, p: float) -> float:
    """Return the quantile of Student's t: the t with P(T ≤ t) = p.

    Newton's method on the distribution function, from the quantile of the normal distribution. It equals
    `scipy.special.stdtrit` to nine digits (`tests/test_intervals.py`).

    Args:
        df: the degrees of freedom, at least 1.
        p: a probability from 0.5 to below 1.
    """
    at = NormalDist().inv_cdf(p)
    constant = lgamma((df + 1) / 2) - lgamma(df / 2) - log(df * pi) / 2
    for _ in range(100):
        density = exp(constant - (df + 1) / 2 * log1p(at * at / df))
        step = (_above(df, at) - (1 - p)) / density
        at += step
        if abs(step) <= 1e-11 * at:
            break
    return at


def _above(df: float, t: float) -> float:
    """Return P(T > t) for t ≥ 0, half the regularised incomplete beta function at df / (df + t²)."""
    return _beta(df / 2, 0.5, df / (df + t * t)) / 2


def _beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly
        return 1 - _beta(b, a, 1 - x)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)) / a
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or _SMALL)
    value = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):  # Lentz's method
            c, d = (1 + term / c) or _SMALL, 1 / ((1 + term * d) or _SMALL)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * value
