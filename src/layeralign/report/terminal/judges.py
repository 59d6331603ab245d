"""Quality of judges and panels of judges, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from layeralign._util.text import printable
from layeralign.analysis.judging.agreement import JudgePair
from layeralign.analysis.judging.calibrate import Calibration, Measured
from layeralign.analysis.judging.panel import Panel
from layeralign.judges.guards.registry import published
from layeralign.report.asr import asr_of, ends, short, span

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


MAJORITY = (
    "Majority: what most valid verdicts say; ties are invalid. Worst case: unsafe if any judge says so, safe "
    "if all say so. Split: one judge says safe and another unsafe. Over 2 % invalid answers make the ASR a "
    "range."
)
"""What the columns of a panel mean."""


def panel(found: Panel) -> Table:
    """Return a panel's ASR at every exit, in percent with 95 % intervals."""
    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"Panel: {printable(', '.join(found.judges))}", "bold"),
        title_justify="left",
        caption=f"Percent; * default exit. {MAJORITY}",
        caption_justify="left",
    )
    for head in ("exit", "n", "majority\nASR", "95 %", "worst\ncase ASR", "95 %", "split"):
        made.add_column(head, justify="right", no_wrap=True)
    for one in found.exits:
        cells = [str(one.n)]
        for estimates in (one.majority, one.worst):
            asr = asr_of("", estimates)
            cells += [span(asr), ends(asr, between="–") or "–"]
        split = "–" if one.split.value is None else short(one.split.value)
        name = f"{one.name}{'*' if one.default else ' '}"
        made.add_row(name, *cells, split, style="bold" if one.default else "")
    return made


def agreement(pairs: Sequence[JudgePair]) -> Table:
    """Return Cohen's kappa of pairs of judges, and what they disagree on."""
    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text("Agreement on the same answers to harmful requests", "bold"),
        title_justify="left",
        caption="κ: 1 is agreement on every row, 0 what chance gives.",
        caption_justify="left",
    )
    for head in ("judges", "rows", "κ", "95 %", "where they differ"):
        justify: JustifyMethod = "left" if head in ("judges", "where they differ") else "right"
        made.add_column(head, justify=justify, overflow="fold")
    for one in pairs:
        differ = "; ".join(f"{n} {mine} – {theirs}" for mine, theirs, n in one.confusion if mine != theirs)
        kappa = "–" if one.kappa is None else f"{one.kappa:.2f}"
        interval = "–" if one.low is None or one.high is None else f"{one.low:.2f}–{one.high:.2f}"
        names = Text(printable(f"{one.one} – {one.other}"))
        made.add_row(names, str(one.n), kappa, interval, differ or "nowhere")
    return made
