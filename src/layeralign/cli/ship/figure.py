"""`figure`: one chart for a paper."""

from __future__ import annotations

from pathlib import Path

from layeralign._util.text import printable
from layeralign.cli.app import SHIP, app
from layeralign.cli.options import Runs
from layeralign.report import What


@app.command(group=SHIP)
def figure(
    runs: Runs, *, what: What = "curve", out: Path, columns: int = 1, judge: str | None = None
) -> None:
    """Write one of the page's charts for a paper, or its numbers as CSV.

    Parameters
    ----------
    runs
        Folders of the runs, as in report.
    what
        Chart: curve (by exit), categories (category × exit), tradeoff (FLOPs saved against harm), controls
        (with and without the pictures), changes (run × exit, against the first run), training.
    out
        File to write; its name ends in .svg, .pdf, .png or .csv.
    columns
        Width in columns of a paper: 1 (3.25 inches) or 2 (6.75 inches).
    judge
        Judge of the ASR; by default the most trusted judge of the run, or of all runs.
    """
    from layeralign.report.charts.figure import write
    from layeralign.report.inputs import gather

    write(gather(runs, judge), what, out, columns)
    print(printable(f"figure: {out}"))
