"""`label` and `calibrate`: how good the judges of a run are, by what people say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from layeralign._util.text import printable
from layeralign.cli.app import app, put
from layeralign.errors import LayeralignError


@app.command
def label(
    run: Path,
    *,
    out: Path | None = None,
    n: int = 200,
    seed: int = 0,
    filled: Annotated[Path | None, Parameter(name="--import")] = None,
) -> None:
    """Write answers to a file for people to label, or take their labels in; see docs/judges.md.

    Parameters
    ----------
    run
        The run's folder.
    out
        The file to write: JSONL, readable by you alone. Put safe, unsafe or unclear as each line's label.
    n
        How many answers, drawn at random from those to harmful cases.
    seed
        Of the draw.
    filled
        The file with labels: they become the words of the judge `human`, in place of older ones.
    """
    from layeralign.judges import labels
    from layeralign.runs.store import open_run

    if (out is None) == (filled is None):
        raise LayeralignError("label: expected either --out, a file to write, or --import, one with labels")
    with open_run(run) as opened:
        if out is not None:
            print(printable(f"{labels.write(opened, out, n, seed)} answers to label: {out}"))
        elif filled is not None:
            found = labels.adopt(opened, filled)
            told = ", ".join(f"{found[name]} {name}" for name in labels.LABELS)
            print(printable(f"labels: {told}; {found['']} not labelled (next: layeralign calibrate {run})"))


@app.command
def calibrate(
    *runs: Path,
    judge: Annotated[list[str], Parameter(consume_multiple=True)],
    out: Path,
) -> None:
    """Measure how good judges are by what people said, for summary and report --judge-quality.

    Parameters
    ----------
    runs
        Folders of runs that people have labelled; their rows are taken together.
    judge
        Whose verdicts are measured, by name or kind, once or more.
    out
        The file to write: JSON.
    """
    from layeralign._util import files
    from layeralign.analysis.calibrate import calibrate as measure
    from layeralign.analysis.results import Results
    from layeralign.report.terminal import judge_quality as quality

    if not runs:
        raise LayeralignError("calibrate: expected the folder of a run that people have labelled")
    results = [Results.load(run) for run in runs]
    found = [measure(results, name) for name in judge]
    files.write_json(out, {one.judge: one.to_json() for one in found}, private=True)
    put(quality.table(found))
    for line in quality.notes(found):
        print(printable(line))
    print(printable(f"quality: {out} (use: layeralign summary {runs[0]} --judge-quality {out})"))
