"""A real server, started for a benchmark, and what the endpoint test says of it."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx

from layeralign.gating.endpoint import Located

PORT = 8123
_WAIT_S = 900


@contextmanager
def served(command: list[str], log: Path, *, killed: bool = False, **environment: str) -> Iterator[str]:
    """A running server; the base URL of its chat completions. `killed`: at the end, with all its processes."""
    with (
        log.open("w") as out,
        subprocess.Popen(
            command, stdout=out, stderr=out, env=os.environ | environment, start_new_session=killed
        ) as server,
    ):
        try:
            end = time.monotonic() + _WAIT_S
            while not _healthy():
                if server.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"{command[0]}: does not serve; see {log}")
                time.sleep(1)
            yield f"http://127.0.0.1:{PORT}/v1"
        finally:
            if killed:
                os.killpg(server.pid, signal.SIGKILL)
            else:
                server.terminate()


def _healthy() -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{PORT}/health").is_success
    except httpx.HTTPError:
        return False


def head(title: str, engine: str, command: str, heads: Sequence[str], dtype: str = "float32") -> None:
    """Print the title of a result, where and how it was measured, and the head of its table."""
    print(f"# {title}\n")
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, {engine}, {dtype}.")
    print(f"Command: `python benchmarks/runtimes/{command}`.\n")
    print(line(heads))
    print("|---" * len(heads) + "|")


HEADS = (
    "exit that `check FILE` names",
    "exits that fit the answers",
    "agreement with it",
    "with the next exit",
    "answered",
)


def cells(found: Located, exit: int | None) -> tuple[str, ...]:
    """The cells of a row; see `HEADS`."""
    best, second, *_ = found.fits
    return (
        str(exit),
        ", ".join(fit.name for fit in found.exits) or "none",
        f"{best.agreement:.3f} (exit {best.name})",
        f"{second.agreement:.3f} (exit {second.name})",
        f"{found.answered} of {found.asked}",
    )


def line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"
