"""Whether a run is as its last command left it."""

from __future__ import annotations

import sys
from pathlib import Path

from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.runs.opening import open_run
from layeralign.runs.seal import UNSEALED
from layeralign.runs.store import Run


def note_incomplete(run: Run) -> None:
    """Say on stderr that a run was not closed, or is the part of a stopped scan: long answers end last.

    A sequential scan leaves answers out, and clients of a server ask what they like, so these say nothing.
    """
    if not run.sealed:
        why = f"was not closed: {UNSEALED}; repeat that command"
        print(printable(f"note: run {run.path}: {why}"), file=sys.stderr)
    if run.sequential or "served" in run.identity:
        return
    given = {case.id for case in run.given()}
    answered = {at: len(some) for at, cases in run.answered().items() if (some := cases & given)}
    answered |= dict.fromkeys(((exit, 0) for exit in run.asked if (exit, 0) not in answered), 0)
    if (rows := sum(answered.values())) < (whole := len(given) * len(answered)):
        what = f"is not complete: it has {rows} answers, and {whole} with every case at every exit"
        print(printable(f"note: run {run.path}: {what}; repeat its scan"), file=sys.stderr)


def verified(run: Path) -> str:
    """Return a sentence about what a run holds, once its hash, its structure and every row were read.

    Raises:
        LayeralignError: the run is damaged, or its last command was killed or still works.
    """
    with open_run(run) as opened:
        opened.check()
        judges, cases = opened.judges(), len(opened.case_hashes())
        rows, sealed = sum(1 for _ in opened.rows()), opened.sealed
    if not sealed:
        raise LayeralignError(
            f"run {run}: was not closed: {UNSEALED}. Its {rows} answers can be read; repeat that command, "
            "which closes it"
        )
    by = ", ".join(judges) or "no judge"
    return f"run {run}: intact; {rows} answers to {cases} cases, judged by {by}"
