"""Progress of a long job: a bar on a terminal, otherwise a line at intervals."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

_EVERY = 10.0
"""Seconds between lines without a terminal."""


class Progress:
    """Count `done` up to `total`, with the rate and the time left, on stderr."""

    def __init__(self, what: str, total: int, done: int = 0, *, speaks: bool = True) -> None:
        self._what, self._total, self._first, self._done = what, total, done, done
        self._start = self._told = time.monotonic()
        console = Console(stderr=True, quiet=not speaks)
        self._speaks = speaks
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(what, total=total, completed=done, rate="")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._bar.disable and self._done == self._total:
            self._tell(time.monotonic())

    def advance(self, by: int) -> None:
        """Record that `by` more items are done."""
        self._done += by
        now = time.monotonic()
        self._bar.update(self._task, completed=self._done, rate=f"{self._rate(now):.1f}/s")
        if self._bar.disable and now - self._told >= _EVERY and self._done < self._total:
            self._tell(now)

    def _rate(self, now: float) -> float:
        return (self._done - self._first) / max(now - self._start, 1e-9)

    def _tell(self, now: float) -> None:
        self._told = now
        if not self._speaks:
            return
        left = (self._total - self._done) / max(self._rate(now), 1e-9)
        print(
            f"{self._what} {self._done}/{self._total}, {self._rate(now):.1f}/s, {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
