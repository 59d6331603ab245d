"""`calibrate`: the error rates of judges, measured against people's labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from layeralign._util.terminal import put, say
from layeralign._util.text import printable
from layeralign.cli.options import Out
from layeralign.errors import LayeralignError


def calibrate(
    *runs: Path,
    judge: Annotated[list[str], Parameter(consume_multiple=True)],
    out: Out,
) -> None:
    """Measure the error rates of judges against people's labels, for --judge-quality of other commands.

    Parameters
    ----------
    runs
        Folders of labelled runs; their rows are pooled.
    judge
        Judges to measure, by name or kind.
    out
        JSON file to write.
    """
    from layeralign._util import files
    from layeralign.analysis.judging.calibrate import calibrate as measure
    from layeralign.analysis.results import Results
    from layeralign.report.terminal import judges as tables

    if not runs:
        raise LayeralignError("calibrate: expected the folder of a labelled run (layeralign label)")
    results = [Results.load(run) for run in runs]
    found = [measure(results, name) for name in judge]
    files.write_json(out, {one.judge: one.to_json() for one in found}, private=True)
    for one in found:
        put(tables.table(one))
    say(tables.EXPLAINED, *tables.notes(found))
    print(printable(f"quality: {out} (use: layeralign summary {runs[0]} --judge-quality {out})"))
