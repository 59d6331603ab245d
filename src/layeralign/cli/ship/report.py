"""`report`: one page about runs."""

from __future__ import annotations

from pathlib import Path

from layeralign._util.text import printable
from layeralign.cli.options import Out, Runs


def report(
    runs: Runs,
    *,
    out: Out,
    judge: str | None = None,
    judge_quality: Path | None = None,
    with_answers: bool = False,
) -> None:
    """Write one self-contained HTML page about a run, or about several runs side by side.

    Parameters
    ----------
    runs
        Folders of the runs; the other runs are compared with the first.
    out
        HTML file to write, such as report.html.
    judge
        Judge of the ASR; by default the most trusted judge of the run, or of all runs.
    judge_quality
        File with the judge's error rates, as calibrate writes it: adds the corrected ASR.
    with_answers
        Include prompts and answers; the page shows them one row at a time, on request.
    """
    from layeralign.report.inputs import gather
    from layeralign.report.page import page

    page.write(gather(runs, judge, judge_quality), out, with_answers=with_answers)
    print(printable(f"report: {out}"))
