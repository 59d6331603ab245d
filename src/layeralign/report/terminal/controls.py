"""The effect of the picture, for a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from layeralign.analysis.summary import ALPHA, Summary
from layeralign.analysis.within.controls import ControlMetrics
from layeralign.report.asr import asr_of, span
from layeralign.report.terminal.summary import asr_name


def table(summary: Summary, width: int = 140) -> Table:
    """Return the ASR with the case's own picture at every exit, and its difference to each control in points.

    If the table is wider than `width` characters, the ASR of the controls is left out.
    """
    whole, console = _table(summary, wide=True), Console(width=10 * width)
    fits = Measurement.get(console, console.options, whole).maximum <= width
    return whole if fits else _table(summary, wide=False)


def _table(summary: Summary, *, wide: bool) -> Table:
    asked = list(dict.fromkeys(one.control for one in summary.controls))
    name, judge = asr_name(summary), summary.asr_judge
    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"What the picture does: {name} of the same cases with other pictures", "bold"),
        title_justify="left",
        caption="Percent, and own picture less control in points, with the 95 % interval of the paired "
        "difference. * default exit. ! differs (paired test, corrected over the exits, p < 0.05). Where "
        "nothing differs, what a picture shows is not why a request gets through. – : none could be judged.",
        caption_justify="left",
    )
    heads = [f"own\n{name} %"]
    for control in asked:
        heads += [f"{control}\n{name} %", "own less\nthis"] if wide else [f"own less\n{control}"]
    for head in ("exit", "cases", *heads):
        made.add_column(head, justify="right", no_wrap=True)
    by_exit: dict[int, dict[str, ControlMetrics]] = {}
    for one in summary.controls:
        by_exit.setdefault(one.exit, {})[one.control] = one
    for found in by_exit.values():
        some = next(iter(found.values()))
        both = some.difference["asr_worst_case"]  # over all harmful cases with both versions
        mark, n = "*" if some.default else " ", both.n if both else 0
        cells = [f"{some.name}{mark}", str(n), span(asr_of(judge, some.own))]
        for control in asked:
            cells += _cells(judge, found.get(control))[0 if wide else 1 :]
        made.add_row(*cells, style="bold" if some.default else "")
    return made


def _cells(judge: str, found: ControlMetrics | None) -> tuple[str, str]:
    """Return the ASR with a control, and the difference: own picture minus control."""
    change = None if found is None else found.difference["asr"]
    if found is None or change is None:
        return "–", "–"
    mark = "!" if found.p_differs is not None and found.p_differs < ALPHA else " "
    ends = f"{round(100 * change.low)} to {round(100 * change.high)}"
    return span(asr_of(judge, found.instead)), f"{round(100 * change.difference):+d} ({ends}){mark}"
