"""Asking a server again: what may be over when it is tried later, and how long to wait until then."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay
from tenacity import wait_random_exponential as wait_jitter

LATER = (408, 425, 429, *range(500, 600))
"""HTTP's words for: not now."""

T = TypeVar("T")


class Retry(Exception):
    """What may be over when it is tried again, after so many seconds where the server says how many."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.why, self.after = why, after


def retry(once: Callable[[], T], *, attempts: int, budget: float, slowest: float) -> T:
    """What `once` gives, which is called again where it raises `Retry`.

    Args:
        once: one attempt.
        attempts: at most so many.
        budget: seconds after which no further attempt begins.
        slowest: longest pause in seconds; pauses are random and grow, and `Retry.after` goes before them.

    Raises:
        Again: the last one, when patience ends.
    """

    def pause(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        after = error.after if isinstance(error, Retry) else None
        waits: float = wait_jitter(multiplier=min(0.5, slowest), max=slowest)(state)
        return waits if after is None else min(max(after, waits), budget)

    retrying = Retrying(
        retry=retry_if_exception_type(Retry), wait=pause, reraise=True,
        stop=stop_after_attempt(attempts) | stop_after_delay(budget),
    )  # fmt: skip
    return retrying(once)


def seconds(after: str | None) -> float | None:
    """What a `Retry-After` says; None where it says nothing, or a date, which the growing pauses replace."""
    try:
        return max(0.0, float(after)) if after else None
    except ValueError:
        return None
