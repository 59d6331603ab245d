"""The log of a running training: JSONL, TensorBoard, and a live table."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter

from layeralign._util import files, notebook
from layeralign.errors import LayeralignError

FILE = "log.jsonl"
_EVERY = 10.0
"""Seconds between printed lines without a terminal."""
_HEAD, _CELL, _SPACE = 15, 6, 3
"""Characters of a metric's name, of a number, and between columns."""
_COLUMNS = (
    ("reward", "reward", ".2f"),
    ("refuses harmful", "refused_harmful", ".0%"),
    ("refuses others", "refused_others", ".0%"),
    ("KL", "kl", ".2f"),
    ("retention KL", "retention_kl", ".4f"),
    ("entropy", "entropy", ".2f"),
    ("clipped", "clip_fraction", ".1%"),
    ("expl. variance", "explained_variance", ".2f"),
    ("loss", "imitation_loss", ".3f"),
    ("length", "length", ".1f"),
    ("tokens/s", "tokens_per_second", ".0f"),
)


def read(folder: Path, steps: int) -> list[dict[str, Any]]:
    """Return the first `steps` lines of a log; later lines, which the checkpoint lacks, are written again.

    Raises:
        LayeralignError: the log is missing or too short.
    """
    file = folder / FILE
    if steps == 0:
        return []
    if not file.exists():
        raise LayeralignError(f"log {file}: is missing, although the checkpoint exists; use a new folder")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()[:steps]
        found = [dict(json.loads(line)) for line in lines]
    except (ValueError, TypeError, RecursionError):
        found = []
    numbers = [
        one for line in found for v in line.values() for one in (v.values() if isinstance(v, dict) else [v])
    ]
    if [line.get("step") for line in found] != list(range(steps)) or not all(map(_is_number, numbers)):
        raise LayeralignError(
            f"log {file}: does not hold the {steps} steps of the checkpoint; use a new folder"
        )
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, float) or type(value) is int


class Log:
    """Writes each step's metrics, and appends them to `history`.

    The constructor takes the training's folder, the metrics of the steps done so far, and the number of
    steps. Only the process with `writes` writes and prints; the other processes only append.
    """

    def __init__(self, folder: Path, history: list[dict[str, Any]], steps: int, *, writes: bool) -> None:
        self._history, self._steps, self._writes, self._folder = history, steps, writes, folder
        self._start = self._printed = time.monotonic()
        self._first = len(history)
        self._live: Live | None = None
        self._output = notebook.Output() if notebook.in_notebook() else None

    def __enter__(self) -> Log:
        if not self._writes:
            return self
        with self._saving():
            files.write(self._folder / FILE, "".join(json.dumps(line) + "\n" for line in self._history))
            self._file = (self._folder / FILE).open("a", encoding="utf-8")
            self._hook, threading.excepthook = threading.excepthook, self._unhandled
            self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=self._first)
        console = Console(stderr=True)
        if console.is_terminal:
            self._live = Live(console=console, refresh_per_second=4, transient=False)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._writes:
            return
        with self._saving(), ExitStack() as stack:
            stack.callback(setattr, threading, "excepthook", self._hook)
            if self._live:
                stack.callback(self._live.stop)
            stack.callback(self._board.close)
            stack.callback(self._file.close)

    def _saving(self) -> AbstractContextManager[None]:
        return files.saving(f"out {self._folder}:")

    def _unhandled(self, raised: threading.ExceptHookArgs) -> None:
        """Leave errors of TensorBoard's thread to the next call of it, which raises them."""
        if not isinstance(raised.exc_value, OSError):
            self._hook(raised)

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        with self._saving():
            os.fsync(self._file.fileno())

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Log one step's metrics: plain numbers, and `exits` and `weights` as exit -> number."""
        self._history.append(dict(metrics))
        if not self._writes:
            return
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in metrics.items()}
        with self._saving():
            self._file.write(json.dumps(plain) + "\n")
            self._file.flush()
            for name, value in metrics.items():
                for part, number in value.items() if isinstance(value, dict) else [("", value)]:
                    self._board.add_scalar(f"{name}/{part}" if part else name, number, metrics["step"])
        now = time.monotonic()
        if self._live:
            self._live.update(self._table(now, self._live.console.width))
        elif self._output:
            self._output.show(notebook.table(self._table(now)), self._line(now))
        elif now - self._printed >= _EVERY or metrics["step"] + 1 == self._steps:
            self._printed = now
            print(self._line(now), file=sys.stderr, flush=True)

    def _speed(self, now: float) -> tuple[float, float]:
        """Return the steps per second, and the seconds left."""
        speed = (len(self._history) - self._first) / max(now - self._start, 1e-9)
        return speed, (self._steps - len(self._history)) / max(speed, 1e-9)

    def _line(self, now: float) -> str:
        last, (speed, left) = self._history[-1], self._speed(now)
        numbers = ", ".join(f"{head} {last[name]:{form}}" for head, name, form in _COLUMNS if name in last)
        return f"step {last['step'] + 1}/{self._steps}, {speed:.2f}/s, {left:.0f} s left: {numbers}"

    def _table(self, now: float, width: int = 120) -> Table:
        speed, left = self._speed(now)
        title = f"step {len(self._history)} of {self._steps}, {speed:.2f}/s, {left:.0f} s left"
        return table(self._history, title, width)


def table(history: Sequence[Mapping[str, Any]], title: str, width: int = 120) -> Table:
    """Return the last steps side by side, as many as fit: a line per metric, so that a trend is read."""
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    fit = max(1, (width - 1 - _HEAD - _SPACE) // (_CELL + _SPACE))
    shown = history[-fit:]
    made.add_column("step", min_width=_HEAD, no_wrap=True)
    for metrics in shown:
        made.add_column(str(metrics["step"] + 1), justify="right", min_width=_CELL, no_wrap=True)
    for head, name, form in _COLUMNS:
        if history and name in history[-1]:
            made.add_row(head, *(f"{one[name]:{form}}" if name in one else "–" for one in shown))
    return made
