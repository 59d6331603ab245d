"""The page's charts for a paper: the same numbers as SVG, PDF, PNG or CSV, as wide as one column or two."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from layeralign._util import files
from layeralign.errors import LayeralignError
from layeralign.report import What
from layeralign.report.charts import csv_rows as lines
from layeralign.report.charts import plots
from layeralign.report.charts.series import harmful_categories, series
from layeralign.report.charts.tradeoff import savings
from layeralign.report.inputs import Report

WIDTHS = {1: 3.25, 2: 6.75}
"""Columns of a paper -> inches."""
_DRAW: Mapping[str, Callable[[dict[str, Any], float], Figure]] = {
    "curve": plots.curve,
    "categories": plots.categories,
    "tradeoff": plots.tradeoff,
    "controls": plots.controls,
    "changes": plots.changes,
    "training": plots.training,
}
_LINES: Mapping[str, Callable[[dict[str, Any]], lines.Lines]] = {
    "curve": lines.curve,
    "categories": lines.categories,
    "tradeoff": lines.tradeoff,
    "controls": lines.controls,
    "changes": lines.changes,
    "training": lines.training,
}
_ENDINGS = (".svg", ".pdf", ".png", ".csv")


def draw(report: Report, what: What = "curve", columns: int = 2) -> Figure:
    """One of the charts.

    Args:
        report: from `layeralign.report.inputs.gather`.
        what: which.
        columns: of a paper that it is to be as wide as: 1 (3.25 inches) or 2 (6.75).

    Raises:
        LayeralignError: the runs lack what it takes.
    """
    drawn = _drawable(report, what)
    if columns not in WIDTHS:
        raise LayeralignError(f"columns {columns}: expected 1 or 2")
    with matplotlib.rc_context(plots.STYLE):
        return _DRAW[what](drawn, WIDTHS[columns])


def write(report: Report, what: What, file: Path, columns: int = 1) -> None:
    """Write one of the charts, or its numbers, by the file's ending: .svg, .pdf, .png or .csv.

    Raises:
        LayeralignError: another ending, or the runs lack what the chart takes.
    """
    if file.suffix not in _ENDINGS or file.is_dir():
        raise LayeralignError(f"out {file}: expected a file that ends in {', '.join(_ENDINGS)}")
    if file.suffix != ".csv":
        save(draw(report, what, columns), file)
        return
    drawn = _drawable(report, what)
    text = io.StringIO(newline="")
    csv.writer(text).writerows(map(_inert, _LINES[what](drawn)))
    files.write(file, text.getvalue())


def _inert(line: list[Any]) -> list[Any]:
    """Texts of strangers that a spreadsheet would take for a formula, kept from being one."""
    return [
        f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell
        for cell in line
    ]


def save(figure: Figure, file: Path) -> None:
    """Write a figure by the file's ending; an SVG or a PDF is the same every time."""
    metadata: dict[str, Any] = {".svg": {"Date": None, "Creator": None}, ".pdf": {"CreationDate": None}}
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(file) as draft, matplotlib.rc_context(plots.STYLE):
        figure.savefig(draft, format=file.suffix[1:], dpi=300, metadata=metadata.get(file.suffix, {}))


def _drawable(report: Report, what: str) -> dict[str, Any]:
    """The series of a report that has what the chart takes."""
    if what not in _DRAW:
        raise LayeralignError(f"figure {what!r}: expected one of {', '.join(_DRAW)}")
    drawn = series(report)
    runs = drawn["runs"]
    there, missing = {
        "curve": (drawn["metrics"], "nothing in the runs is judged"),
        "categories": (
            len(harmful_categories(drawn)) > 1,
            "it takes judged harmful cases of two categories or more",
        ),
        "tradeoff": (
            any(savings(run) for run in runs),
            "it takes judged harmful cases, also at the default exit, of a model whose FLOPs can be counted",
        ),
        "controls": (
            any(found for run in runs for found in run["controls"].values()),
            "it takes a scan with --controls whose harmful cases are judged",
        ),
        "changes": (drawn["changes"], "it takes two runs or more of the same cases"),
        "training": (
            any(run["training"] for run in runs),
            "it takes a run with an adapter whose folder is where it was",
        ),
    }[what]
    if not there:
        raise LayeralignError(f"figure {what}: {missing}")
    return drawn
