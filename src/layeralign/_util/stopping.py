"""SIGTERM and SIGHUP stop a command as Ctrl-C does: work that has ended is saved."""

from __future__ import annotations

import signal
import sys
from types import FrameType


class Stopped(KeyboardInterrupt):
    """One of these signals; its argument is the signal's number."""


def listen() -> None:
    """Raise `Stopped` at these signals; one that is ignored, as SIGHUP under nohup, stays ignored."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def told(stop: KeyboardInterrupt) -> int:
    """Say that the command was stopped; return its exit code: 130, 143 (SIGTERM) or 129 (SIGHUP)."""
    print("\nstopped; finished work is saved, and the same command resumes it", file=sys.stderr)
    return 128 + (stop.args[0] if isinstance(stop, Stopped) else signal.SIGINT)


def _stop(number: int, _: FrameType | None) -> None:
    raise Stopped(number)
