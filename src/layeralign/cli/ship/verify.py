"""`verify`: whether a run is as its last command left it."""

from __future__ import annotations

from pathlib import Path

from layeralign._util.terminal import say


def verify(run: Path, /) -> None:
    """Compare a run with the hash that its last command wrote, and read all of it.

    Every command that reads a run makes the same comparison first; the exit code is 1 if the run is damaged
    or was not closed.

    Parameters
    ----------
    run
        Folder of the run.
    """
    from layeralign.runs.verified import verified

    say(verified(run))
