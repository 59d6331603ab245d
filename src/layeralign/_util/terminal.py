"""Output for a terminal or a log: tables that fit, and sentences that wrap between words."""

from __future__ import annotations

import os
from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from layeralign._util.text import printable

LOG_WIDTH = 120
"""Characters in a line of a table where there is no terminal and no COLUMNS."""
_LINE = 100
"""Longest line of a title or a note: longer lines are hard to read."""
_SPACE = 3
"""Characters between two columns."""
_LONG_WORD = 24
"""A longer word in a column that wraps, such as the name of a judge's model, may be broken."""


def console(*, stderr: bool = False) -> Console:
    """Return a console of the terminal's width; COLUMNS, or 120 characters, where there is no terminal."""
    made = Console(stderr=stderr, highlight=False, emoji=False)
    if made.is_terminal or "COLUMNS" in os.environ:
        return made
    return Console(stderr=stderr, highlight=False, emoji=False, width=LOG_WIDTH)


def put(table: Table, keys: int = 1, to: Console | None = None) -> None:
    """Print a table with its title above and its caption below, each wrapped between words.

    A table that is too wide is split into several, one below the other. Each has the first `keys` columns.
    """
    to = to or console()
    title, caption, table.title, table.caption = table.title, table.caption, None, None
    if title:
        to.print(_wrapped(title, "bold"), width=min(to.width, _LINE))
    for part in split(table, to, keys):
        to.print(part)
    if caption:
        to.print(_wrapped(caption, ""), width=min(to.width, _LINE))


def _wrapped(text: object, style: str) -> Text:
    return text if isinstance(text, Text) else Text(str(text), style)


def say(*lines: str, stderr: bool = False) -> None:
    """Print lines of untrusted text: wrapped between words on a terminal, as they are in a log or a pipe."""
    to = console(stderr=stderr)
    for line in lines:
        to.print(Text(printable(line)), soft_wrap=not to.is_terminal)


def split(table: Table, to: Console, keys: int = 1) -> list[Table]:
    """Return the table, or several that fit: each with the first `keys` columns and some of the others."""
    needs = [_needs(column, to) for column in table.columns]
    widths = [least + _SPACE for least, _ in needs]
    room, others = to.width - sum(widths[:keys]) - 1, widths[keys:]
    parts = _parts(others, room)
    while room > 1 and len(parts[-1]) == 1 < len(parts) == len(_parts(others, room - 1)):
        room -= 1  # so that the last column is not alone
        parts = _parts(others, room)
    tables = [table] if len(parts) == 1 else [_columns(table, keys, part) for part in parts]
    for one, part in zip(tables, parts, strict=True):
        _set_widths(one, [*needs[:keys], *(needs[keys + at] for at in part)], to.width)
    return tables


def _needs(column: Column, to: Console) -> tuple[int, int]:
    """Return a column's least width and its full width.

    At its least width no number is cut, and no word is broken unless it is long.
    """
    found = [
        Measurement.get(
            to, to.options.update(width=10_000), to.render_str(cell) if isinstance(cell, str) else cell
        )
        for cell in (column.header, *column.cells)
    ]
    full = max(column.min_width or 0, *(one.maximum for one in found))
    least = full if column.no_wrap else min(max(one.minimum for one in found), _LONG_WORD)
    return max(column.min_width or 0, least), full


def _set_widths(table: Table, needs: Sequence[tuple[int, int]], width: int) -> None:
    """Set the widths of a table's columns: the widest give way first, and none below what it needs.

    Rich alone narrows a column below its `min_width`, and then cuts the table's last column at the margin.
    """
    widths = [full for _, full in needs]
    while sum(widths) + _SPACE * len(widths) + 1 > width:
        wide = [at for at, (least, _) in enumerate(needs) if widths[at] > least]
        if not wide:
            break  # one column is wider than the terminal
        widths[max(wide, key=widths.__getitem__)] -= 1
    for column, one in zip(table.columns, widths, strict=True):
        column.width = one


def _parts(widths: list[int], room: int) -> list[list[int]]:
    """Return consecutive columns that together fit into `room`; a column that is wider is alone."""
    parts: list[list[int]] = [[]]
    for at, width in enumerate(widths):
        if parts[-1] and sum(widths[one] for one in parts[-1]) + width > room:
            parts.append([])
        parts[-1].append(at)
    return parts


def _columns(table: Table, keys: int, others: list[int]) -> Table:
    """Return a copy with the first `keys` columns and some of the others."""
    made = Table(box=table.box, show_header=table.show_header, padding=table.padding)
    columns = [table.columns[at] for at in (*range(keys), *(keys + at for at in others))]
    for one in columns:
        made.add_column(
            one.header, justify=one.justify, no_wrap=one.no_wrap, overflow=one.overflow, style=one.style
        )  # fmt: skip
    for row, cells in zip(table.rows, zip(*(one.cells for one in columns), strict=True), strict=True):
        made.add_row(*cells, style=row.style, end_section=row.end_section)
    return made
