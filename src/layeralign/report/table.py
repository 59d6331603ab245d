"""A summary in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from layeralign.analysis.figures import Figures
from layeralign.analysis.quality import Quality
from layeralign.analysis.seeds import Seeds
from layeralign.analysis.summary import ExitFigures, GroupFigures, Summary
from layeralign.judges.refusal import RefusalMatcher
from layeralign.text import printable

_BAR = 12


def percent(share: float | None) -> str:
    """A share as a whole percentage; a dash where it was not measured."""
    return "–" if share is None else f"{100 * share:.0f}"


def interval(figures: Figures) -> str:
    """The ASR's 95 % interval, in percent."""
    return "–" if figures.asr is None else f"{percent(figures.asr_low)}–{percent(figures.asr_high)}"


def corrected(figures: Figures) -> str:
    """The ASR without the judge's errors, in percent, with its 95 % interval."""
    if figures.asr_corrected is None:
        return "–"
    low, high = percent(figures.asr_corrected_low), percent(figures.asr_corrected_high)
    return f"{percent(figures.asr_corrected)} ({low}–{high})"


def invalid(figures: Figures) -> str:
    """How many answers could not be judged and, if any, the ASR if all were safe or unsafe."""
    if figures.invalid == 0:
        return "0"
    return (
        f"{figures.invalid} ({percent(figures.asr_if_invalid_safe)}–{percent(figures.asr_if_invalid_unsafe)})"
    )


def table(summary: Summary, width: int = 140) -> Table:
    """Every exit, then every group, in percent; the default exit bold, worse exits marked.

    Where `width` characters are too few, the columns that a reader can best spare are left out.
    """
    whole, console = _table(summary, wide=True), Console(width=10 * width)
    fits = Measurement.get(console, console.options, whole).maximum <= width
    return whole if fits else _table(summary, wide=False)


def _table(summary: Summary, *, wide: bool) -> Table:
    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"{printable(summary.model)}: ASR: {printable(summary.asr_means)}", "bold"),
        title_justify="left",
        caption=caption(summary),
        caption_justify="left",
    )
    columns = [column for column in _COLUMNS if summary.quality or column.cell is not corrected]
    shown = [column for column in columns if wide or column.narrow]
    made.add_column("exit", justify="right", no_wrap=True)
    for column in shown:
        head = asr_name(summary) + " %" if column.head == "ASR" else column.head
        made.add_column(head, justify="left" if column.left else "right", no_wrap=True)
    for exit in summary.exits:
        mark = "*" if exit.default else "!" if exit.worse else " "
        cells = [column.cell(exit) for column in shown]
        style = "bold" if exit.default else ""
        made.add_row(f"{exit.name}{mark}", *cells, style=style, end_section=exit is summary.exits[-1])
    for group in summary.groups:
        made.add_row("mean" if wide else group.group, *(column.cell(group) for column in shown), style="dim")
    return made


def asr_name(summary: Summary | Seeds) -> str:
    """What the ASR is called: a matcher of refusals measures non-refusal and no more."""
    return "non-refusal" if summary.asr_judge == RefusalMatcher.kind else "ASR"


def caption(summary: Summary) -> str:
    """What the marks and columns mean, in a sentence or two."""
    default = any(exit.default for exit in summary.exits)
    compared = "! worse than the default (paired test, corrected, p < 0.05). " if default else ""
    return (
        f"Percent. * default exit{'' if default else ' (not scanned)'}. {compared}"
        "Told apart = refuses harmful − refuses borderline; 0 is guessing. "
        "Invalid: answers that could not be judged (ASR if all were safe – if all were unsafe)."
        + (f" Corrected: {printable(told(summary.quality))}." if summary.quality else "")
    )


def told(quality: Quality) -> str:
    """What a correction takes the judge to be, and by whom."""
    return (
        f"as if the judge made no errors; it calls {percent(quality.sensitivity)} % of {quality.n_positive} "
        f"unsafe answers unsafe, {percent(quality.specificity)} % of {quality.n_negative} safe ones safe"
        + (f" ({quality.source})" if quality.source else "")
    )


def _bar(share: float | None) -> Text:
    if share is None:
        return Text("")
    eighths = round(share * _BAR * 8)
    full, rest = divmod(eighths, 8)
    return Text("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else ""), style="red")


@dataclass(frozen=True)
class _Column:
    head: str
    cell: Callable[[ExitFigures | GroupFigures], str | Text]
    narrow: bool = True
    left: bool = False


def _share(name: str) -> Callable[[ExitFigures | GroupFigures], str]:
    return lambda figures: percent(getattr(figures, name))


_COLUMNS = (
    _Column("group", lambda f: f.group, narrow=False, left=True),
    _Column("n", lambda f: str(f.n), narrow=False),
    _Column("ASR", _share("asr")),
    _Column("95 %", interval),
    _Column("corrected\n95 %", corrected),
    _Column("", lambda f: _bar(f.asr), narrow=False, left=True),
    _Column("refuses\nharmful", _share("refusal")),
    _Column("refuses\nborderline", _share("over_refusal")),
    _Column("told\napart", _share("separation")),
    _Column("refuses\nbenign", _share("benign_refusal"), narrow=False),
    _Column("coherent", _share("coherence"), narrow=False),
    _Column("utility", _share("utility"), narrow=False),
    _Column("invalid", invalid),
)
