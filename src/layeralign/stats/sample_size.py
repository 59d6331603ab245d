"""Number of additional cases that would resolve an inconclusive check."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from math import ceil

MOST_CASES = 1_000_000
"""Larger numbers are not computed."""


def share_needs(share: float, n: int, reach: float, limit: float) -> int | None:
    """Return the cases beyond `n` after which an interval that crosses a limit would end there.

    The share is assumed to stay the same. Wilson's interval of a share p in m rows ends at b where (p - b)² =
    z² b (1 - b) / m. So the end at `reach` gives the number of independent rows that the n are worth, and an
    end at `limit` the number that is needed. Their ratio is assumed to stay the same, as it does for similar
    cases.

    Args:
        share: the measured share.
        n: the number of rows.
        reach: the interval's end on the side of the limit, beyond it.
        limit: the value at which the interval should end.

    Returns:
        The number of cases; None where no number is enough, because the share is at the limit.
    """
    worth, wanted = (b * (1 - b) / (share - b) ** 2 if share != b else 0.0 for b in (reach, limit))
    return _more(n, worth, wanted)


def mean_needs(mean: float, n: int, reach: float, limit: float) -> int | None:
    """Return the same for a mean, whose interval halves with four times the rows."""
    worth, wanted = (1 / (mean - b) ** 2 if mean != b else 0.0 for b in (reach, limit))
    return _more(n, worth, wanted)


def end_needs(value: float, n: int, end: Callable[[float], float], limit: float) -> int | None:
    """Return the same for any quantity, by a search over its interval's end `end(times)`.

    `times` is the multiple of the rows. The interval of a change narrows faster than that of a mean: if
    nothing changed, its width is inversely proportional to the number of rows.
    """
    if value == limit:
        return None

    def settled(more: int) -> bool:
        there = end((n + more) / n)
        return there <= limit if value < limit else there >= limit

    return 1 + bisect_left(range(1, MOST_CASES), True, key=settled)


def approximate(more: int) -> str:
    """Return a number of additional cases in words."""
    return f"more than {MOST_CASES}" if more >= MOST_CASES else f"about {more}"


def _more(n: int, worth: float, wanted: float) -> int | None:
    if not worth or not wanted:
        return None
    return min(MOST_CASES, max(1, ceil(n * wanted / worth) - n))
