"""Ctrl-C (SIGINT), SIGTERM and SIGHUP stop a command; finished work is saved."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


_CAUGHT: list[int] = []
"""Signals that were caught: libraries, as Ray, raise a plain KeyboardInterrupt in place of a `Stopped`."""


class Stopped(KeyboardInterrupt):
    """One of these signals; its argument is the signal's number."""


def listen() -> None:
    """Raise `Stopped` at these signals; one that is ignored, as SIGHUP under nohup, stays ignored.

    SIGINT, too: Python ends by the signal, not by an exit code, once a plain KeyboardInterrupt has left an
    `exec` of a string, as in `dataclasses` and `namedtuple`, even if it was caught further out.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    sys.unraisablehook = _unraisable


@contextmanager
def kept() -> Iterator[None]:
    """Keep the handlers of signals in a block, in which a library sets its own."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:  # in another thread, none was set
                signal.signal(number, handler)


@contextmanager
def passed(number: int, handle: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Pass a signal to a library in a block, and raise `Stopped` at its end: it would break an event loop."""
    if signal.getsignal(number) is not _stop:
        yield
        return
    seen = []

    def caught(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        handle(number, frame)

    signal.signal(number, caught)
    try:
        yield
    finally:
        signal.signal(number, _stop)
    if seen:
        _stop(number, None)


def told(stop: KeyboardInterrupt) -> int:
    """Say that the command was stopped; return its exit code: 130, 143 (SIGTERM) or 129 (SIGHUP)."""
    print("\nstopped; finished work is saved, and the same command resumes it", file=sys.stderr)
    return 128 + (stop.args[0] if isinstance(stop, Stopped) else (_CAUGHT or [signal.SIGINT])[-1])


def _stop(number: int, _: FrameType | None) -> None:
    _CAUGHT.append(number)
    raise Stopped(number)


def _unraisable(unraisable: Any) -> None:
    """Send the signal again if its exception was raised where Python drops exceptions.

    Such places are finalizers and weak reference callbacks, for example those of the import system. The
    signal comes from a thread a moment later, as an exception inside of this function is dropped, too.
    """
    if isinstance(unraisable.exc_value, Stopped):
        threading.Timer(0.01, os.kill, (os.getpid(), unraisable.exc_value.args[0])).start()
    else:
        sys.__unraisablehook__(unraisable)
