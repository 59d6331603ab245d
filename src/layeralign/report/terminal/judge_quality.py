"""Quality of judges, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from layeralign._util.text import printable
from layeralign.analysis.judging.calibrate import Calibration, Measured
from layeralign.judges.guards.registry import published

EXPLAINED = (
    "By people's labels; percent, with 95 % intervals, n rows that the judge decided. A correction takes a "
    "judge to be as good at every exit: compare the groups."
)
"""What the tables of all judges mean."""


def table(one: Calibration) -> Table:
    """Return a judge's sensitivity and specificity, on all labelled rows and in each group of exits."""
    made = Table(box=box.SIMPLE_HEAD, title=Text(printable(one.judge), "bold"), title_justify="left")
    for head in (
        "exits",
        "calls unsafe\nunsafe",
        "n\nunsafe",
        "calls safe\nsafe",
        "n\nsafe",
        "invalid of\nunsafe, safe",
    ):
        made.add_column(head, justify="left" if head == "exits" else "right", no_wrap=True)
    made.add_row("all", *_cells(one.all), style="bold")
    for group, measured in one.groups.items():
        made.add_row(Text(printable(group)), *_cells(measured), style="dim")
    return made


def _cells(one: Measured) -> list[str]:
    return [
        _share(one.sensitivity, one.sensitivity_low, one.sensitivity_high),
        str(one.n_positive),
        _share(one.specificity, one.specificity_low, one.specificity_high),
        str(one.n_negative),
        f"{one.invalid_positive}, {one.invalid_negative}",
    ]


def _share(share: float | None, low: float | None, high: float | None) -> str:
    if share is None or low is None or high is None:
        return "–"
    return f"{100 * share:.0f} ({100 * low:.0f}–{100 * high:.0f})"


def notes(calibrations: Sequence[Calibration]) -> list[str]:
    """Return notes: unclear labels, judges that cannot be corrected, published error rates."""
    made = []
    for one in calibrations:
        if one.unclear:
            made.append(f"{one.judge}: {one.unclear} answers that people called unclear are in no figure")
        if (one.all.sensitivity or 0) + (one.all.specificity or 0) <= 1:
            made.append(f"{one.judge}: is no better than chance here, so it cannot be corrected")
        if metrics := published(one.judge):
            made.append(f"{one.judge}: {metrics}")
    return made
