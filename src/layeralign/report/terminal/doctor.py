"""Results of `layeralign doctor`, for a terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from layeralign._util.text import printable
from layeralign.diagnosis import Diagnosis

_STYLES = {"pass": "green", "fail": "bold red", "not checked": "yellow"}


def table(found: Diagnosis) -> Table:
    """Return a table with one row per check."""
    made = Table(box=box.SIMPLE_HEAD, title=printable(f"{found.model} ({found.family}, {found.dtype})"))
    made.add_column("check")
    made.add_column("result", no_wrap=True)
    made.add_column("found", overflow="fold")
    for check in found.checks:
        result = Text(check.result, _STYLES[check.result])
        made.add_row(check.name, result, Text(printable(check.found, 400)))
    return made
