"""The transfer matrix for a terminal: trained exits × scanned exits."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.table import Table
from rich.text import Text

from layeralign._util.text import printable
from layeralign.analysis.cautions import caution
from layeralign.analysis.compare import Comparison
from layeralign.report.asr import change_of
from layeralign.report.terminal.comparison import left_open

Found = Mapping[str, Comparison]
"""Trained exits -> the changes at every exit."""


def table(found: Found) -> Table:
    """Return the change of the ASR in percentage points, trained exits × scanned exits."""
    exits = _exits(found)
    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"{_cautions(found)}Change of the ASR at each exit, points", "bold"),
        title_justify="left",
        caption=f"! the 95 % interval lies above 0: closing one exit opened another.{_left_open(found)}",
        caption_justify="left",
    )
    for head in ("trained on", *exits.values()):
        made.add_column(head, justify="right", no_wrap=True)
    for name, one in found.items():
        made.add_row(printable(name), *(_cell(one, exit) for exit in exits))
    return made


def _cautions(found: Found) -> str:
    """Return the cautions of all runs, each with what its model was trained on."""
    first = next(iter(found.values()), None)
    said = {"Before": caution(first.before)} if first else {}
    said |= {f"After {printable(name, 40)}": caution(one.after) for name, one in found.items()}
    return "".join(f"{when}: {what}" for when, what in said.items() if what)


def _left_open(found: Found) -> str:
    """Return the explanation of a range; empty if there is none."""
    if not any(map(left_open, found.values())):
        return ""
    return (
        " -40 to +5: over 2 % of the answers could not be judged, before or after; the change if these count "
        "in either way."
    )


def _exits(found: Found) -> dict[int, str]:
    """Map every scanned exit to its name."""
    return dict(sorted({e.exit: e.name for one in found.values() for e in one.exits}.items()))


def _cell(one: Comparison, exit: int) -> str:
    """Return the change of the ASR at an exit, with a mark if it rose; a range if answers were not judged."""
    at = next((e for e in one.exits if e.exit == exit), None)
    found = change_of(one.before.asr_judge, at) if at else None
    if found is None:
        return "–"
    least, most, low, _ = found
    told = dict.fromkeys((_whole(least), _whole(most)))
    return f"{' to '.join(told)}{'!' if low > 0 else ' '}"


def _whole(change: float) -> str:
    """Format a change in whole points, signed; 0 has no sign."""
    return f"{points:+d}" if (points := round(100 * change)) else "0"
