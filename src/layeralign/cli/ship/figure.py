"""`figure`: one chart for a paper, or its numbers."""

from __future__ import annotations

from layeralign._util.terminal import say
from layeralign._util.text import printable
from layeralign.cli.options import Out, Runs
from layeralign.report import What


def figure(runs: Runs, *, what: What = "curve", out: Out, columns: int = 1, judge: str | None = None) -> None:
    """Write the numbers of one of the page's charts as CSV, or draw the curve or the trade-off for a paper.

    Parameters
    ----------
    runs
        Folders of the runs, as in report.
    what
        Chart: curve (by exit) or tradeoff (FLOPs saved against harm). As CSV also categories (category ×
        exit), controls (with and without the pictures), changes (run × exit, against the first run) and
        training.
    out
        File to write. A .csv file gets the numbers of the chart; a .svg, .pdf or .png file the drawing.
    columns
        Width in columns of a paper: 1 (3.25 inches) or 2 (6.75 inches).
    judge
        Judge of the ASR; by default the most trusted judge of the run, or of all runs.
    """
    from layeralign.report.charts.figure import write
    from layeralign.report.inputs import gather
    from layeralign.report.page.findings import warnings

    found = gather(runs, judge)
    write(found, what, out, columns)
    say(*warnings(found))
    print(printable(f"figure: {out}"))
