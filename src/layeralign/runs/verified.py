"""Whether a run is as its last command left it."""

from __future__ import annotations

from pathlib import Path

from layeralign.errors import LayeralignError
from layeralign.runs.opening import open_run
from layeralign.runs.seal import UNSEALED


def verified(run: Path) -> str:
    """Return a sentence about what a run holds, once its hash, its structure and every row were read.

    Raises:
        LayeralignError: the run is damaged, or its last command was killed or still works.
    """
    with open_run(run) as opened:
        structure, judges, cases = opened.structure(), opened.judges(), len(opened.case_hashes())
        rows, sealed = sum(1 for _ in opened.rows()), opened.sealed
    if structure != "ok":
        raise LayeralignError(f"run {run}: is damaged ({structure}); restore it from a copy, or scan again")
    if not sealed:
        raise LayeralignError(
            f"run {run}: was not closed: {UNSEALED}. Its {rows} answers can be read; repeat that command, "
            "which closes it"
        )
    by = ", ".join(judges) or "no judge"
    return f"run {run}: intact; {rows} answers to {cases} cases, judged by {by}"
