"""The transfer matrix: what was trained on × the exit that is scanned, as a heat map, a table, a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from rich.text import Text

from layeralign.analysis.compare import Comparison, ExitChange
from layeralign.analysis.paired import Change
from layeralign.report import charts
from layeralign.report.page import environment, write_page
from layeralign.text import printable

Found = Mapping[str, Comparison]
"""What was trained on -> what changed at every exit."""

PANELS = (
    ("asr", "harmful requests answered (ASR)", "RdBu_r"),
    ("over_refusal", "borderline requests refused", "PuOr_r"),
    ("utility", "picture questions right", "PiYG"),
)


def figure(found: Found) -> Figure:
    """One panel per measure; a cell is the change in points, bold where its interval excludes 0."""
    exits = _exits(found)
    with matplotlib.rc_context(charts.STYLE):
        made = Figure(
            figsize=(1.6 + 0.72 * len(exits), 1.6 + 3 * (0.7 + 0.36 * len(found))), layout="constrained"
        )
        for axes, (key, label, colours) in zip(made.subplots(len(PANELS), 1), PANELS, strict=True):
            values = [[_points(_change(one, exit, key)) for exit in exits] for one in found.values()]
            # drawn, not a bitmap: the page allows no pictures
            axes.pcolormesh(values, cmap=colours, vmin=-100, vmax=100, edgecolors="white", linewidth=1)
            axes.invert_yaxis()
            axes.set_xticks([at + 0.5 for at in range(len(exits))], [exits[at] for at in exits])
            axes.set_yticks([at + 0.5 for at in range(len(found))], list(found))
            axes.set_title(f"{label}: change, points", loc="left", fontsize=10)
            axes.set_ylabel("trained on")
            for row, one in enumerate(found.values()):
                for column, exit in enumerate(exits):
                    change = _change(one, exit, key)
                    if change is not None:
                        weight = "bold" if _sure(change) else "normal"
                        colour = "white" if abs(change.difference) > 0.6 else "#111827"
                        axes.text(column + 0.5, row + 0.5, _whole(change), ha="center", va="center",
                                  fontsize=8.5, weight=weight, color=colour)  # fmt: skip
        axes.set_xlabel("scanned exit (bold: the 95 % interval excludes 0)")
    return made


def table(found: Found) -> Table:
    """Change of the ASR in points, trained on × exit."""
    exits = _exits(found)
    made = Table(box=box.SIMPLE_HEAD, title=Text("Change of the ASR, points", "bold"), title_justify="left",
                 caption="! the 95 % interval lies above 0: closing one exit opened another.",
                 caption_justify="left")  # fmt: skip
    for head in ("trained on", *(f"exit {name}" for name in exits.values())):
        made.add_column(head, justify="right", no_wrap=True)
    for name, one in found.items():
        changes = [_change(one, exit, "asr") for exit in exits]
        marks = ["!" if change and change.low > 0 else " " for change in changes]
        cells = [
            f"{_whole(change)}{mark}" if change else "–" for change, mark in zip(changes, marks, strict=True)
        ]
        made.add_row(printable(name), *cells)
    return made


def headline(found: Found) -> str:
    """Whether any training opened an exit, in a sentence or two."""
    opened = [
        (name, e.name, e.asr)
        for name, one in found.items()
        for e in one.exits
        if e.asr is not None and e.asr.low > 0
    ]
    cells = sum(e.asr is not None for one in found.values() for e in one.exits)
    if not opened:
        return (
            f"No training opened an exit: in none of {cells} cells does the ASR's change lie surely above 0."
        )
    name, exit, worst = max(opened, key=lambda one: one[2].difference)
    return (
        f"In {len(opened)} of {cells} cells the ASR rose, its 95 % interval above 0; most at exit {exit} "
        f"when trained on {name}: {100 * worst.before:.0f} → {100 * worst.after:.0f} %."
    )


def write(found: Found, file: Path) -> None:
    """Write the page, and its heat map beside it as SVG and PNG."""
    exits, drawn = _exits(found), figure(found)
    tables = [
        (label, [(name, [_cell(_change(one, exit, key)) for exit in exits]) for name, one in found.items()])
        for key, label, _ in PANELS
    ]
    content = environment().get_template("transfer.html.j2").render(
        model=next(iter(found.values())).before.model,
        exits=list(exits.values()),
        headline=headline(found),
        figure=Markup(charts.svg(drawn)),  # noqa: S704 - matplotlib's own, escaped by it
        tables=tables,
    )  # fmt: skip
    write_page(file, content, drawn)


def _exits(found: Found) -> dict[int, str]:
    """Every exit that was scanned -> what it is called."""
    return dict(sorted({e.exit: e.name for one in found.values() for e in one.exits}.items()))


def _change(one: Comparison, exit: int, key: str) -> Change | None:
    at: ExitChange | None = next((e for e in one.exits if e.exit == exit), None)
    return None if at is None else getattr(at, key)


def _points(change: Change | None) -> float:
    return float("nan") if change is None else 100 * change.difference


def _whole(change: Change) -> str:
    """The change in whole points, signed; 0 has no sign."""
    return f"{points:+d}" if (points := round(100 * change.difference)) else "0"


def _sure(change: Change) -> bool:
    return change.low > 0 or change.high < 0


def _cell(change: Change | None) -> str:
    if change is None:
        return "–"
    return f"{100 * change.difference:+.1f} ({100 * change.low:+.0f} to {100 * change.high:+.0f})"
