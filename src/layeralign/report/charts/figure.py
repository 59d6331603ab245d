"""The page's charts for a paper: the numbers of each as CSV, and two of them as SVG, PDF or PNG."""

from __future__ import annotations

import csv
import io
import re
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
"""Columns of a paper -> width in inches."""
_DRAW: Mapping[str, Callable[[plots.Drawn, float], Figure]] = {
    "curve": plots.curve,
    "tradeoff": plots.tradeoff,
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
    """Draw a chart.

    Args:
        report: from `layeralign.report.inputs.gather`.
        what: the chart, curve or tradeoff.
        columns: the width in columns of a paper: 1 (3.25 inches) or 2 (6.75 inches).

    Raises:
        LayeralignError: the runs lack the data of the chart, or an argument is invalid.
    """
    if what not in _DRAW:
        raise LayeralignError(
            f"figure {what}: is not drawn; expected {' or '.join(_DRAW)}, or a .csv file for the numbers"
        )
    drawn = _measured(report, what)
    if columns not in WIDTHS:
        raise LayeralignError(f"columns {columns}: expected 1 or 2")
    with matplotlib.rc_context(plots.STYLE):
        return _DRAW[what](drawn, WIDTHS[columns])


def write(report: Report, what: What, file: Path, columns: int = 1) -> None:
    """Write the numbers of a chart to a .csv file, or the chart to a .svg, .pdf or .png file.

    Raises:
        LayeralignError: the file ends differently, the chart is not drawn, or the runs lack its data.
    """
    if file.suffix not in _ENDINGS or file.is_dir():
        raise LayeralignError(f"out {file}: expected a file that ends in {', '.join(_ENDINGS)}")
    if file.suffix != ".csv":
        save(draw(report, what, columns), file)
        return
    drawn = _measured(report, what)
    text = io.StringIO(newline="")
    csv.writer(text).writerows(map(_inert, _LINES[what](drawn)))
    files.write(file, text.getvalue())


def _inert(line: list[Any]) -> list[Any]:
    """Quote untrusted cells that a spreadsheet would run as a formula."""
    return [
        f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell
        for cell in line
    ]


def save(figure: Figure, file: Path) -> None:
    """Write a figure in the format of the file's suffix; SVG and PDF files are reproducible."""
    metadata: dict[str, Any] = {".svg": {"Date": None, "Creator": None}, ".pdf": {"CreationDate": None}}
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic(file) as draft, matplotlib.rc_context(plots.STYLE):
        figure.savefig(draft, format=file.suffix[1:], dpi=300, metadata=metadata.get(file.suffix, {}))


def inline(figure: Figure) -> str:
    """Return a figure as SVG inside HTML, in the text's colour, for light and dark pages."""
    text = io.StringIO()
    with matplotlib.rc_context(plots.STYLE | {"svg.fonttype": "none"}):
        figure.savefig(text, format="svg", transparent=True, metadata=dict.fromkeys(_NOTED))
    found = text.getvalue()[text.getvalue().index("<svg") :]
    found = re.sub(r"<(metadata|style)\b.*?</\1>|<!--.*?-->", "", found, flags=re.DOTALL)
    found = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf"<svg \1 {_INLINE}>", found, count=1)
    return re.sub(r"<[^>]*>", _themed, found)


def _themed(tag: re.Match[str]) -> str:
    """Return a tag with shorter numbers, and with colours that follow the page's text."""
    found = re.sub(r"(\.\d\d)\d+", r"\1", tag[0])
    for colour, shown in plots.THEMED.items():
        found = found.replace(colour, shown)
    return found


_NOTED = ("Date", "Creator", "Format", "Type")
_INLINE = 'style="width:100%;max-width:820px;height:auto;fill:currentColor;stroke-linejoin:round"'


def _measured(report: Report, what: What) -> dict[str, Any]:
    """Return the series of a report, if it has the data of the chart."""
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
