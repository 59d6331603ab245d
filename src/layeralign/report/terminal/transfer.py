"""The transfer matrix for a terminal: trained exits × scanned exits."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.table import Table
from rich.text import Text

from layeralign._util.text import printable
from layeralign.analysis.compare import Comparison, ExitChange
from layeralign.stats.paired import Change

Found = Mapping[str, Comparison]
"""Trained exits -> the changes at every exit."""


def table(found: Found) -> Table:
    """Return the change of the ASR in percentage points, trained exits × scanned exits."""
    exits = _exits(found)
    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text("Change of the ASR at each exit, points", "bold"),
        title_justify="left",
        caption="! the 95 % interval lies above 0: closing one exit opened another.",
        caption_justify="left",
    )
    for head in ("trained on", *exits.values()):
        made.add_column(head, justify="right", no_wrap=True)
    for name, one in found.items():
        changes = [_change(one, exit, "asr") for exit in exits]
        marks = ["!" if change and change.low > 0 else " " for change in changes]
        cells = [
            f"{_whole(change)}{mark}" if change else "–" for change, mark in zip(changes, marks, strict=True)
        ]
        made.add_row(printable(name), *cells)
    return made


def _exits(found: Found) -> dict[int, str]:
    """Map every scanned exit to its name."""
    return dict(sorted({e.exit: e.name for one in found.values() for e in one.exits}.items()))


def _change(one: Comparison, exit: int, key: str) -> Change | None:
    at: ExitChange | None = next((e for e in one.exits if e.exit == exit), None)
    return None if at is None else getattr(at, key)


def _whole(change: Change) -> str:
    """Format the change in whole points, signed; 0 has no sign."""
    return f"{points:+d}" if (points := round(100 * change.difference)) else "0"
