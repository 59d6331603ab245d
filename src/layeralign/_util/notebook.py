"""Output in a Jupyter notebook: rich tables as HTML, and an output that is replaced in place."""

from __future__ import annotations

from html import escape
from typing import Any

from rich.console import Console
from rich.style import Style
from rich.table import Column, Table
from rich.text import Text

_TONES = {"red": "#e5534b", "yellow": "#b8860b", "green": "#2da44e"}
"""Colours of a terminal -> tones with a contrast of at least 3 on white and on a dark page."""
_CELL = "padding:3px 8px;border:0;white-space:nowrap;text-align:"
_RULE = "1px solid color-mix(in srgb, currentColor 30%, transparent)"


def in_notebook() -> bool:
    """Return whether the code runs in a Jupyter kernel, or in a service that is built on one."""
    return Console(quiet=True).is_jupyter


class Output:
    """One output of the running cell: each `show` replaces what the one before showed."""

    def __init__(self) -> None:
        self._shown: Any = None

    def show(self, html: str, plain: str) -> None:
        """Show HTML, or `plain` where a front end shows text only."""
        from IPython.display import display  # every kernel has it

        made = {"text/html": html, "text/plain": plain}
        if self._shown is None:
            self._shown = display(made, raw=True, display_id=True)
        else:
            self._shown.update(made, raw=True)


def bar(text: str, done: int, total: int) -> str:
    """Return a progress bar, followed by its text, as HTML."""
    return f'<progress value="{done}" max="{max(total, 1)}"></progress> {escape(text)}'


def table(made: Table) -> str:
    """Return a rich table as HTML that reads well on light and dark pages.

    All text is escaped. Without scripts, style sheets and classes, nothing outside the table changes.
    """
    head = "".join(_cell("th", column.header, column, _RULE) for column in made.columns)
    cells = zip(*(column.cells for column in made.columns), strict=True)
    body = "".join(_row(made, at, each) for at, each in enumerate(cells))
    title = f'<div style="margin:4px 0"><b>{lines(made.title)}</b></div>' if made.title else ""
    note = f'<div style="margin:4px 0;font-size:85%;max-width:72em">{lines(made.caption)}</div>'
    return (
        f'{title}<div style="overflow-x:auto"><table style="border-collapse:collapse;margin:0;'
        f'font-variant-numeric:tabular-nums"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        + note
        * bool(made.caption)
    )


def lines(text: Any) -> str:
    """Return text of a table as HTML: escaped, with its line breaks."""
    return escape(_text(text).plain).replace("\n", "<br>")


def _row(made: Table, at: int, cells: tuple[Any, ...]) -> str:
    """Return a row; a bar at its left has the colour that the row has on a terminal."""
    row = made.rows[at]
    below = _RULE if row.end_section and at + 1 < made.row_count else "0"
    told = [_cell("td", cell, column, below) for cell, column in zip(cells, made.columns, strict=True)]
    bold = ";font-weight:bold" if _style(row.style).bold else ""
    mark = f";box-shadow:inset 4px 0 {tone}" if (tone := _tone(row.style)) else ""
    return f'<tr style="background:none{bold}{mark}">{"".join(told)}</tr>'


def _text(given: Any) -> Text:
    return given if isinstance(given, Text) else Text(str(given or ""))


def _style(given: Any) -> Style:
    return Style.parse(given) if isinstance(given, str) else given or Style.null()


def _tone(given: Any) -> str:
    colour = _style(given).color
    return _TONES.get(colour.name, "") if colour else ""


def _cell(tag: str, content: Any, column: Column, below: str) -> str:
    text, side = _text(content), "right" if column.justify == "right" else "left"
    style = f"{_CELL}{side};border-bottom:{below}"
    style += f";color:{tone}" if (tone := _tone(text.style)) else ""
    style += ";white-space:normal;min-width:5em" if column.overflow == "fold" else ""
    return f'<{tag} style="{style}">{lines(text)}</{tag}>'
