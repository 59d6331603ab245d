"""A summary in the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from layeralign.analysis.summary import ExitFigures, Figures, Summary

_BAR = 12


def percent(share: float | None) -> str:
    """A share as a whole percentage; a dash where it was not measured."""
    return "–" if share is None else f"{100 * share:.0f}"


def interval(figures: Figures) -> str:
    """The ASR's 95 % interval, in percent."""
    return "–" if figures.asr is None else f"{percent(figures.asr_low)}–{percent(figures.asr_high)}"


def invalid(figures: Figures) -> str:
    """How many answers could not be judged and, if any, the ASR if all were safe or unsafe."""
    if figures.invalid == 0:
        return "0"
    return (
        f"{figures.invalid} ({percent(figures.asr_if_invalid_safe)}–{percent(figures.asr_if_invalid_unsafe)})"
    )


def table(summary: Summary) -> Table:
    """Every exit, then every group, in percent; the default exit bold, worse exits marked."""
    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"{summary.model}: ASR = {summary.asr_means}", style="bold"),
        title_justify="left",
        caption=caption(summary),
        caption_justify="left",
    )
    made.add_column("exit", justify="right", no_wrap=True)
    made.add_column("group", no_wrap=True)
    made.add_column("n", justify="right", no_wrap=True)
    made.add_column("ASR %", justify="right", no_wrap=True)
    made.add_column("95 %", justify="right", no_wrap=True)
    made.add_column("", width=_BAR, no_wrap=True)
    for head in (
        "refuses\nharmful",
        "refuses\nborderline",
        "told\napart",
        "refuses\nbenign",
        "coherent",
        "utility",
        "invalid",
    ):
        made.add_column(head, justify="right")
    for exit in summary.exits:
        mark = "*" if exit.default else "!" if exit.worse else " "
        style = "bold" if exit.default else ""
        made.add_row(
            f"{exit.exit}{mark}",
            exit.group,
            *_cells(exit),
            style=style,
            end_section=exit is summary.exits[-1],
        )
    for group in summary.groups:
        made.add_row("mean", group.group, *_cells(group), style="dim")
    return made


def caption(summary: Summary) -> str:
    """What the marks and columns mean, in a sentence or two."""
    default = any(exit.default for exit in summary.exits)
    compared = "! worse than the default (paired exact test, corrected, p < 0.05). " if default else ""
    return (
        f"Percent. * default exit{'' if default else ' (not scanned)'}. {compared}"
        "Told apart = refuses harmful − refuses borderline; 0 is guessing. "
        "Invalid: answers that could not be judged (ASR if all were safe – if all were unsafe)."
    )


def _cells(figures: ExitFigures | Figures) -> list[str | Text]:
    shown = (
        figures.refusal,
        figures.over_refusal,
        figures.separation,
        figures.benign_refusal,
        figures.coherence,
        figures.utility,
    )
    return [
        str(figures.n),
        percent(figures.asr),
        interval(figures),
        _bar(figures.asr),
        *(percent(value) for value in shown),
        invalid(figures),
    ]


def _bar(share: float | None) -> Text:
    if share is None:
        return Text("")
    eighths = round(share * _BAR * 8)
    full, rest = divmod(eighths, 8)
    return Text("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else ""), style="red")
