"""How many more cases would settle what an interval leaves open."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from math import ceil

MOST_CASES = 1_000_000
"""More are not counted."""


def share_needs(share: float, n: int, reach: float, limit: float) -> int | None:
    """Cases beyond `n` until an interval that reaches past a limit ends there, if the share stays what it is.

    Wilson's interval of a share p in m rows ends at b where (p - b)² = z² b (1 - b) / m. So an end at `reach`
    tells how many independent rows the n are worth, and an end at `limit` how many are needed; the ratio
    is taken to stay, as where more cases are drawn alike.

    Args:
        share: as seen.
        n: in so many rows.
        reach: the interval's end on the limit's side, past the limit.
        limit: where it should end.

    Returns:
        None where no number does: the share is at the limit.
    """
    worth, wanted = (b * (1 - b) / (share - b) ** 2 if share != b else 0.0 for b in (reach, limit))
    return _more(n, worth, wanted)


def mean_needs(mean: float, n: int, reach: float, limit: float) -> int | None:
    """The same of a mean, whose interval is half as wide for four times the rows."""
    worth, wanted = (1 / (mean - b) ** 2 if mean != b else 0.0 for b in (reach, limit))
    return _more(n, worth, wanted)


def end_needs(value: float, n: int, end: Callable[[float], float], limit: float) -> int | None:
    """The same of anything whose interval ends at `end(times)` with so many times the rows: it is sought.

    A change's is narrower by more than a mean's: where nothing changed, by as much as there are more rows.
    """
    if value == limit:
        return None

    def settled(more: int) -> bool:
        there = end((n + more) / n)
        return there <= limit if value < limit else there >= limit

    return 1 + bisect_left(range(1, MOST_CASES), True, key=settled)


def approximate(more: int) -> str:
    """So many more, in words."""
    return f"more than {MOST_CASES}" if more >= MOST_CASES else f"about {more}"


def _more(n: int, worth: float, wanted: float) -> int | None:
    if not worth or not wanted:
        return None
    return min(MOST_CASES, max(1, ceil(n * wanted / worth) - n))
