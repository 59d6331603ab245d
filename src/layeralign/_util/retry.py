"""Retries of server requests: which failures are temporary, and how long to wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from tenacity import RetryCallState

LATER = (408, 425, 429, *range(500, 600))
"""HTTP status codes of temporary failures."""

T = TypeVar("T")


class Retry(Exception):
    """A temporary failure; `after` is the pause in seconds that the server requests, if it does."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.why, self.after = why, after


def retry(
    once: Callable[[], T],
    *,
    attempts: int,
    budget: float,
    slowest: float,
    stopped: threading.Event | None = None,
) -> T:
    """Return the result of `once`, which is called again when it raises `Retry`.

    Args:
        once: one attempt.
        attempts: maximum number of attempts.
        budget: seconds after which no further attempt begins.
        slowest: longest pause in seconds. Pauses are random and grow; a longer `Retry.after` takes
            precedence.
        stopped: ends pauses when it is set.

    Raises:
        Retry: the last failure, when attempts or budget are used up.
    """
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay
    from tenacity import wait_random_exponential as wait_jitter
    from tenacity.nap import sleep_using_event

    def pause(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        after = error.after if isinstance(error, Retry) else None
        waits: float = wait_jitter(multiplier=min(0.5, slowest), max=slowest)(state)
        return waits if after is None else min(max(after, waits), budget)

    retrying = Retrying(
        retry=retry_if_exception_type(Retry), wait=pause, reraise=True,
        stop=stop_after_attempt(attempts) | stop_after_delay(budget),
        sleep=sleep_using_event(stopped or threading.Event()),
    )  # fmt: skip
    return retrying(once)


def seconds(after: str | None) -> float | None:
    """Parse a `Retry-After` header; None without a number, or for a date, where growing pauses apply."""
    try:
        return max(0.0, float(after)) if after else None
    except ValueError:
        return None
