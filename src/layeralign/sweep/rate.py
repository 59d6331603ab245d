"""Speed of a model in rows per second, from a run or measured on a few cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from layeralign.cases.case import Case
from layeralign.errors import LayeralignError
from layeralign.runs.store import Run
from layeralign.sweep.settings import ScanSettings
from layeralign.sweep.sweep import WORKERS, sweep
from layeralign.vlm.vlm import Vlm

_FEW = 4
"""Number of cases in a measurement."""


def of(run: Run) -> float:
    """Rows per second of one worker over all sessions of a run.

    Raises:
        LayeralignError: The run has no timings.
    """
    sessions = [session for session in run.sessions() if session["rows"] and session["seconds"]]
    if not sessions:
        raise LayeralignError(f"run {run.path}: has no timings; expected a run with answers of a scan")
    workers = [int(session["versions"].get(WORKERS, 1)) for session in sessions]
    seconds = sum(s["seconds"] * n for s, n in zip(sessions, workers, strict=True))
    return float(sum(s["rows"] for s in sessions) / seconds)


def measured(vlm: Vlm, cases: Sequence[Case], settings: ScanSettings) -> float:
    """Measure rows per second at the settings' exits on four cases spread evenly over `cases`.

    The answers are discarded. Another case is answered first, since a model's first batch is slow.
    """
    few, settings = cases[:: max(1, len(cases) // _FEW)][:_FEW], replace(settings, precision=None)
    with TemporaryDirectory() as folder:
        sweep(vlm, few[:1], Path(folder) / "first", settings).close()
        with sweep(vlm, few, Path(folder) / "run", settings) as run:
            return of(run)
