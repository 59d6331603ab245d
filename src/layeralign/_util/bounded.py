"""Run a function in a child process first, with limits on its time and memory."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

SECONDS, BYTES = 8, 2**30
"""Limits of a child: processor time, and memory beyond that of this process."""
_WAIT = 60.0
"""Seconds without use of the processor after which a child is given up, without a verdict."""
_OVER = 3
"""Exit code of a child that ran out of memory or panicked."""


def excess(do: Callable[[], object]) -> str:
    """Return why `do` must not be run here: it takes too much time or memory, or crashes; else empty.

    An exception of `do` is no reason: run here, it is an error message. Where processes cannot be forked, as
    on Windows, or where the child waits for a lock of another thread, nothing is found out.
    """
    if not hasattr(os, "fork"):
        return ""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads; the child does not use them
        child = os.fork()
    if child == 0:
        _run(do)
    status = _wait(child)
    if status is None or (os.WIFEXITED(status) and os.WEXITSTATUS(status) != _OVER):
        return ""
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL):
        return f"takes more than {SECONDS} s"
    return f"takes more than {BYTES >> 30} GiB, or crashes"


def _run(do: Callable[[], object]) -> None:
    """Run `do` with limits, silently, and end the process."""
    import resource  # not on Windows

    code = 0
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(OSError, ValueError):  # macOS refuses some limits
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
            most = _in_use() + BYTES
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        do()
    except Exception as error:  # raised again, with its message, in this process
        code = _OVER if out_of_memory(error) else 0
    except BaseException:
        code = _OVER
    finally:
        os._exit(code)


def out_of_memory(error: BaseException | None) -> bool:
    """Return whether an exception is a MemoryError, or was raised while one was handled."""
    while error is not None and not isinstance(error, MemoryError):
        error = error.__cause__ or error.__context__
    return error is not None


def _in_use() -> int:
    """Return the size of this process's address space, in bytes."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]  # OSError where there is none
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _used(child: int) -> float:
    """Return the processor time that a child has used, in seconds; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        ticks = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _wait(child: int) -> int | None:
    """Return the child's status; None if it had to be killed because it waited for something.

    On a busy machine, a child that computes may need minutes to reach its limit; it is waited for.
    """
    deadline, used = time.monotonic() + _WAIT, 0.0
    try:
        while True:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                return status
            if time.monotonic() > deadline:
                before, used = used, _used(child)
                if not before < used <= SECONDS:
                    break
                deadline += _WAIT
            time.sleep(0.005)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    os.kill(child, signal.SIGKILL)
    _, status, whole = os.wait4(child, 0)
    return status if whole.ru_utime + whole.ru_stime > SECONDS / 2 else None
