"""`label`: people's verdicts on a sample of a run's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from layeralign._util.text import printable
from layeralign.cli.options import OptionalOut
from layeralign.errors import LayeralignError


def label(
    run: Path,
    *,
    out: OptionalOut = None,
    n: int = 200,
    seed: int = 0,
    filled: Annotated[Path | None, Parameter(name="--import")] = None,
) -> None:
    """Write answers to a file for people to label, or import their labels; see docs/judges.md.

    Parameters
    ----------
    run
        Folder of the run.
    out
        JSONL file to write, readable by you alone. Write safe, unsafe or unclear as the label of each line.
    n
        Number of answers, drawn at random from the answers to harmful cases.
    seed
        Seed of the draw.
    filled
        File with labels; they replace the verdicts of the judge `human`.
    """
    from layeralign.judges import labels
    from layeralign.runs.opening import open_run

    if (out is None) == (filled is None):
        raise LayeralignError(
            "label: expected either --out, a file to write, or --import, a file with labels"
        )
    with open_run(run, write=filled is not None) as opened:
        if out is not None:
            print(printable(f"{labels.write(opened, out, n, seed)} answers to label: {out}"))
        elif filled is not None:
            found = labels.adopt(opened, filled)
            counts = ", ".join(f"{found[name]} {name}" for name in labels.LABELS)
            print(printable(f"labels: {counts}; {found['']} not labelled (next: layeralign calibrate {run})"))
