"""`demo`: the whole method on a testbed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from layeralign._util.terminal import put, say
from layeralign._util.text import printable
from layeralign.cli.options import Out


def demo(
    *,
    out: Out = Path("out/demo"),
    cases: int | None = None,
    steps: int | None = None,
    testbed: Literal["small", "natural"] = "small",
) -> None:
    """Scan a testbed's model at every exit, align it, scan it again, and write a page.

    Parameters
    ----------
    out
        Folder for the runs `before` and `after`, their summaries as JSON, the `adapter`, and `report.html`.
    cases
        Number of cases to scan, from the dev split, by default 1200 (natural: 90); training uses the train
        split.
    steps
        Number of training steps, by default 60 of L-PPO (natural: 30 of consistency).
    testbed
        The model: small, which ships; or natural, of pretrained parts that are downloaded once.
    """
    what = "the bundled model" if testbed == "small" else "the natural testbed"
    say(f"demo: scan, train, scan again, report; {what}, float32", stderr=True)
    from layeralign.report.terminal.comparison import table
    from layeralign.studies.demo import demo as run_demo

    comparison = run_demo(out, cases, steps, testbed)
    put(table(comparison))
    print(printable(f"report: {out / 'report.html'}"))
