"""The command line's app and what its commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cyclopts import App, Group, MissingArgumentError
from rich.console import Console
from rich.table import Table

from layeralign import __version__

if TYPE_CHECKING:
    from layeralign.analysis.summary import Summary

FIND, JUDGE, CLOSE, SHIP = (
    Group(title, sort_key=at)
    for at, title in enumerate(("Find the hole", "Judge the answers", "Close the hole", "Report and ship"))
)
"""Groups of commands in --help."""

app = App(
    name="layeralign",
    help="Find, measure and close the early-exit hole in vision-language models.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # main says how to resume
)


def missing(error: MissingArgumentError) -> str:
    """What was left out of a command, as a user writes it."""
    command, argument = " ".join(error.command_chain or ()), error.argument
    if argument is None:  # by its type it may be
        return str(error)
    given = bool(error.keyword or argument.tokens)
    positional = argument.field_info.is_positional and not given
    name = argument.field_info.name.upper() if positional else argument.name
    return f"{command}: {name} {'needs a value' if given else 'is missing'}; see layeralign {command} --help"


def show(summary: Summary) -> None:
    """Print a run's table, as wide as there is room, and the table of its controls."""
    from layeralign.report.terminal import controls
    from layeralign.report.terminal.summary import table

    console = _console()
    console.print(table(summary, console.width))
    if summary.controls:
        console.print(controls.table(summary, console.width))


def note(remarks: Iterable[str]) -> None:
    """Print notes on stderr, before a command's work begins."""
    for remark in remarks:
        print(f"note: {remark}", file=sys.stderr)


def put(table: Table) -> None:
    """Print a table."""
    _console().print(table)


def _console() -> Console:
    found = Console()
    return found if found.is_terminal else Console(width=140)
