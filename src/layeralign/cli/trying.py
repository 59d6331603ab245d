"""`demo`: scan, align and scan the bundled model."""

from __future__ import annotations

from pathlib import Path

from layeralign._util.text import printable
from layeralign.cli.app import app, put


@app.command
def demo(*, out: Path = Path("out/demo"), cases: int = 1200, steps: int = 60) -> None:
    """Scan the bundled model at every exit, train the hole away, scan again, and write a page.

    Parameters
    ----------
    out
        Folder for the runs `before` and `after`, their summaries as JSON, the `adapter`, `report.html`.
    cases
        Number of cases of the testbed's dev split to judge; training uses the train split only.
    steps
        Number of L-PPO steps.
    """
    from layeralign.demo import demo as run_demo
    from layeralign.report.terminal.comparison import table

    comparison = run_demo(out, cases, steps)
    put(table(comparison))
    print(printable(f"report: {out / 'report.html'}"))
