"""`summary`, `report`, `figure` and `export`: what a run says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from layeralign._util.text import printable
from layeralign.cli.app import app, put, show
from layeralign.errors import LayeralignError
from layeralign.report import What

Runs = Annotated[list[Path], Parameter(consume_multiple=True)]


@app.command
def summary(
    runs: Runs,
    *,
    format: Literal["table", "json"] = "table",
    judge: str | None = None,
    judge_quality: Path | None = None,
) -> None:
    """Show a run's figures per exit and per group, or means over runs that differ in their seed.

    Parameters
    ----------
    runs
        The run's folder; of several, which have to be of the same cases, each counts as one observation.
    format
        A table for people, or JSON for scripts.
    judge
        Whose verdicts make the ASR; by default the most trusted that has judged, of several runs all of them.
    judge_quality
        A file that says how good that judge is, as calibrate writes it: shows the ASR without its errors.
    """
    from layeralign.api import across, read
    from layeralign.report.terminal import seeds

    if len(runs) > 1:
        if judge_quality is not None:
            raise LayeralignError("summary: --judge-quality corrects one run, got several")
        found = across(runs, judge)
        if format == "json":
            print(json.dumps(found.to_json(), indent=2, allow_nan=False))
        else:
            put(seeds.table(found))
        return
    result = read(runs[0], judge, judge_quality)
    if format == "json":
        print(json.dumps(result.summary.to_json(), indent=2, allow_nan=False))
    else:
        show(result)


@app.command
def report(
    runs: Runs,
    *,
    out: Path,
    judge: str | None = None,
    judge_quality: Path | None = None,
    with_answers: bool = False,
) -> None:
    """Write one self-contained page about a run, or about several beside each other.

    Parameters
    ----------
    runs
        The runs' folders; the first is what the others are compared with, as before and after.
    out
        The page, as report.html.
    judge
        Whose verdicts make the ASR; by default the most trusted that has judged, of several runs all of them.
    judge_quality
        A file that says how good that judge is, as calibrate writes it: shows the ASR without its errors.
    with_answers
        Put what was asked and answered into the file; it is shown a row at a time, when asked for.
    """
    from layeralign.report.inputs import gather
    from layeralign.report.page import page

    page.write(gather(runs, judge, judge_quality), out, with_answers=with_answers)
    print(printable(f"report: {out}"))


@app.command
def figure(
    runs: Runs, *, what: What = "curve", out: Path, columns: int = 1, judge: str | None = None
) -> None:
    """Write one of the page's charts for a paper, or its numbers.

    Parameters
    ----------
    runs
        The runs' folders, as in report.
    what
        curve (over the exits), categories (category × exit), tradeoff (FLOPs saved against harm), controls
        (with and without the pictures), changes (run × exit, against the first run), training.
    out
        A file that ends in .svg, .pdf, .png or .csv.
    columns
        Of the paper that it is to be as wide as: 1 (3.25 inches) or 2 (6.75).
    judge
        Whose verdicts make the ASR; by default the most trusted that has judged, of several runs all of them.
    """
    from layeralign.report.charts.figure import write
    from layeralign.report.inputs import gather

    write(gather(runs, judge), what, out, columns)
    print(printable(f"figure: {out}"))


@app.command
def export(run: Path, *, format: Literal["jsonl", "parquet"] = "jsonl", out: Path | None = None) -> None:
    """Write a run's rows, answers and verdicts included, to a file that only you can read.

    Parameters
    ----------
    run
        The run's folder.
    format
        One JSON object per line, or Parquet (needs layeralign[parquet]).
    out
        The file; rows.jsonl or rows.parquet in the run's folder by default.
    """
    from layeralign.runs.export import export as write
    from layeralign.runs.store import open_run

    file = out or run / f"rows.{format}"
    with open_run(run) as opened:
        n = write(opened, format, file)
    print(printable(f"{n} rows: {file}"))
