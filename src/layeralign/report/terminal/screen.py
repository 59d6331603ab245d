"""A screen's estimates, for a terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from layeralign._util.text import printable
from layeralign.analysis.screen import Screen
from layeralign.report.terminal.summary import bar, percent


def table(found: Screen) -> Table:
    """Return a table of every exit's estimate, the most harmful first."""
    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"{printable(found.model)}: estimated harm, without answers", "bold"),
        title_justify="left",
    )
    for head in ("rank", "exit", "harm %", "95 %"):
        made.add_column(head, justify="right", no_wrap=True)
    made.add_column("", no_wrap=True)
    for exit in found.worst_first:
        cells = [str(exit.rank), exit.name + ("*" if exit.default else " "), percent(exit.harm)]
        interval = f"{percent(exit.low)}–{percent(exit.high)}"
        made.add_row(*cells, interval, bar(exit.harm), style="bold" if exit.default else "")
    return made


def told(found: Screen) -> str:
    """Return how the harm was estimated, and the exits from the worst to the best."""
    openings = ", ".join(repr(printable(opening, 40)) for opening in found.openings)
    worst = ",".join(exit.name for exit in found.worst_first)
    return (
        f"* default exit. Harm: probability that the answer to a harmful case does not open as "
        f"{found.refused} of the model's first {found.asked} answers at the default exit do ({openings}); "
        f"from {found.prefills:,} prompts read in {found.seconds:.0f} s. 95 %: over cases like these, "
        f"not of what a scan would find. Worst first: --exits {worst}"
    )
