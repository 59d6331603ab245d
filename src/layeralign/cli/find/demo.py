"""`demo`: the whole method on the bundled model."""

from __future__ import annotations

from pathlib import Path

from layeralign._util.terminal import put, say
from layeralign._util.text import printable
from layeralign.cli.options import Out


def demo(*, out: Out = Path("out/demo"), cases: int = 1200, steps: int = 60) -> None:
    """Scan the bundled model at every exit, align it, scan it again, and write a page.

    Parameters
    ----------
    out
        Folder for the runs `before` and `after`, their summaries as JSON, the `adapter`, and `report.html`.
    cases
        Number of cases of the testbed's dev split that are judged; training uses the train split only.
    steps
        Number of L-PPO steps.
    """
    say(f"demo: scan, train {steps} steps, scan again, report; the bundled model, float32", stderr=True)
    from layeralign.report.terminal.comparison import table
    from layeralign.studies.demo import demo as run_demo

    comparison = run_demo(out, cases, steps)
    put(table(comparison))
    print(printable(f"report: {out / 'report.html'}"))
