"""Before and after, in the terminal and as one self-contained page without answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup
from rich import box
from rich.table import Table
from rich.text import Text

from layeralign.analysis.compare import Comparison
from layeralign.analysis.paired import Change
from layeralign.report import charts
from layeralign.report.page import environment, write_page
from layeralign.report.table import asr_name, caution, interval, invalid, percent
from layeralign.text import printable

_AT_DEFAULT = (
    ("harmful requests refused", "refusal"),
    ("borderline requests refused", "over_refusal"),
    ("benign requests refused", "benign_refusal"),
    ("picture questions right", "utility"),
    ("coherent answers", "coherence"),
)


def arrow(change: Change | None) -> str:
    """A share before and after, in percent."""
    return "–" if change is None else f"{percent(change.before)} → {percent(change.after)}"


def table(comparison: Comparison) -> Table:
    """Every exit, before → after, in percent; the default exit bold."""
    names = f"{printable(comparison.before.model)} → {printable(comparison.after.model)}"
    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text(
            f"{caution(comparison.after)}{names}: ASR: {printable(comparison.before.asr_means)}", "bold"
        ),
        title_justify="left",
        caption="Percent, before → after, the same cases. * default exit. 95 %: of the ASR after.",
        caption_justify="left",
    )
    heads = (f"{asr_name(comparison.before)} %", "95 %", "refuses\nborderline", "refuses\nbenign", "coherent",
             "utility", "invalid\nafter")  # fmt: skip
    for head in ("exit", *heads):
        made.add_column(head, justify="right", no_wrap=True)
    after = {figures.exit: figures for figures in comparison.after.exits}
    for e in comparison.exits:
        now = after[e.exit]
        made.add_row(
            f"{e.name}{'*' if e.default else ' '}", arrow(e.asr), interval(now), arrow(e.over_refusal),
            arrow(e.benign_refusal), arrow(e.coherence), arrow(e.utility), invalid(now),
            style="bold" if e.default else "",
        )  # fmt: skip
    return made


def headline(comparison: Comparison) -> str:
    """What happened, in two or three sentences."""
    measured = [e for e in comparison.exits if e.asr]
    if not measured:
        return "No harmful case was judged in both runs."
    worst = max(measured, key=lambda e: e.asr.before if e.asr else 0)
    still = max(measured, key=lambda e: e.asr.after if e.asr else 0)
    name = asr_name(comparison.before)
    assert worst.asr and still.asr  # noqa: S101 - measured
    text = (
        f"Worst {name} over the encoder's exits: {percent(worst.asr.before)} % (exit {worst.name}) before, "
        f"{percent(still.asr.after)} % (exit {still.name}) after."
    )
    default = next((e for e in measured if e.default), None)
    if default and default.over_refusal and default.utility:
        over, utility = default.over_refusal, default.utility
        text += (
            f" At the default exit {default.name}: borderline requests refused {100 * over.before:.1f} → "
            f"{100 * over.after:.1f} %, picture questions right {100 * utility.before:.1f} → "
            f"{100 * utility.after:.1f} %."
        )
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def page(comparison: Comparison, training: Sequence[tuple[str, str]] = ()) -> str:
    """The change as HTML.

    Args:
        comparison: of two runs.
        training: (name, value) lines that say how the model was changed.
    """
    here = environment()
    here.filters.update(arrow=arrow)
    default = next((e for e in comparison.exits if e.default), None)
    rows = [(name, getattr(default, key)) for name, key in _AT_DEFAULT] if default else []
    return here.get_template("change.html.j2").render(
        comparison=comparison,
        after={figures.exit: figures for figures in comparison.after.exits},
        curve=Markup(charts.svg(charts.change(comparison))),  # noqa: S704 - matplotlib's own, escaped by it
        headline=caution(comparison.after) + headline(comparison),
        asr=asr_name(comparison.before),
        default=[row for row in rows if row[1] is not None],
        training=training,
    )


def write(comparison: Comparison, file: Path, training: Sequence[tuple[str, str]] = ()) -> None:
    """Write the page, and its chart beside it as SVG and PNG."""
    write_page(file, page(comparison, training), charts.change(comparison))
