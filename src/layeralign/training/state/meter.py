"""A step's measurements."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

from torch import Tensor

from layeralign.training.parallel import Workers


class Meter:
    """Means of a step's measurements over rows or tokens and over processes, and its other metrics.

    Attributes:
        step: the step's number.
        started: when the step began, by `time.monotonic`.
        plain: metrics that are not means, by name.
    """

    def __init__(self, step: int) -> None:
        self.step, self.started = step, time.monotonic()
        self.plain: dict[str, Any] = {}
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def add(self, name: str, total: float | Tensor, count: float) -> None:
        """Add `count` measurements whose sum is `total`."""
        self._sums[name][0] += float(total)
        self._sums[name][1] += count

    def merge(self, other: Meter) -> None:
        """Add the measurements of another meter."""
        for name, (total, count) in other._sums.items():
            self.add(name, total, count)

    def means(self, workers: Workers) -> dict[str, float]:
        """Name -> mean over all processes, without the names that no process measured."""
        names = sorted({name for names in workers.gather([sorted(self._sums)]) for name in names})
        flat = workers.total(*(value for name in names for value in self._sums[name]))
        pairs = zip(names, flat[::2], flat[1::2], strict=True)
        return {name: total / count for name, total, count in pairs if count}

    def metrics(self, workers: Workers) -> dict[str, Any]:
        """All of the step's metrics, as they are logged."""
        return {"step": self.step, **self.means(workers), **self.plain}
