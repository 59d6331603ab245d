"""Progress of a long job: a bar on a terminal or in a notebook, otherwise a line at intervals."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from layeralign._util import notebook

_EVERY = 10.0
"""Seconds between lines without a terminal."""
_REDRAWN = 0.5
"""Seconds between two states of a notebook's bar."""


def phase(number: int, of: int, what: str) -> None:
    """Name the next part of a long command on stderr."""
    print(f"{number}/{of} {what}", file=sys.stderr, flush=True)


class Progress:
    """Count `done` up to `total`, with the rate and the time left, on stderr or in the notebook's cell."""

    def __init__(self, what: str, total: int, done: int = 0, *, speaks: bool = True) -> None:
        self._what, self._total, self._first, self._done = what, total, done, done
        self._start = self._told = time.monotonic()
        console = Console(stderr=True, quiet=not speaks)
        self._speaks = speaks
        self._output = notebook.Output() if console.is_jupyter else None
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
        pause = _REDRAWN if self._output else _EVERY
        if self._bar.disable and now - self._told >= pause and self._done < self._total:
            self._tell(now)

    def _rate(self, now: float) -> float:
        return (self._done - self._first) / max(now - self._start, 1e-9)

    def _tell(self, now: float) -> None:
        self._told = now
        if not self._speaks:
            return
        left = (self._total - self._done) / max(self._rate(now), 1e-9)
        text = f"{self._what} {self._done}/{self._total}, {self._rate(now):.1f}/s, {left:.0f} s left"
        if self._output:
            self._output.show(notebook.bar(text, self._done, self._total), text)
        else:
            print(text, file=sys.stderr, flush=True)
