"""How many requests a server is given at once."""

from __future__ import annotations

import time
from collections.abc import Callable

LEAST, MOST = 32, 512
"""Requests in flight at the start, and at most."""
GAIN = 1.1
"""Growth of the rate that is worth twice as many requests in flight."""


class Flow:
    """The number of requests in flight, doubled as long as this raises the rate.

    Attributes:
        limit: Number of requests in flight.
    """

    def __init__(self, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with `LEAST` requests, or with `most` if that is fewer."""
        self._most, self._clock = max(1, most), clock
        self.limit = min(LEAST, self._most)
        self._best, self._grows = 0.0, True
        self._ended, self._since = 0, clock()

    def at_most(self, most: int) -> None:
        """Lower the largest number of requests, for example because one of them is large."""
        self._most = max(1, min(self._most, most))
        self.limit = min(self.limit, self._most)

    def ended(self) -> None:
        """Count a request that has ended; after four for each place, compare the rate with the best one."""
        self._ended += 1
        if not self._grows or self._ended < 4 * self.limit:
            return
        now = self._clock()
        rate = self._ended / max(now - self._since, 1e-9)
        self._ended, self._since = 0, now
        if rate < GAIN * self._best:
            self.limit, self._grows = max(1, self.limit // 2), False
        elif self.limit < self._most:
            self._best, self.limit = rate, min(2 * self.limit, self._most)
        else:
            self._grows = False
