"""The command line's app, its configuration file and what its commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclopts import App, Group, MissingArgumentError
from cyclopts.config import Dict
from rich.console import Console
from rich.table import Table

from layeralign import __version__
from layeralign._util import strict_yaml
from layeralign.errors import LayeralignError
from layeralign.training.settings import FLAGS, FRACTIONS

if TYPE_CHECKING:
    from layeralign.analysis.summary import Summary

_FRACTIONS = {
    "temperature",
    "top_p",
    "precision",
    "held_out",
    "difference",
    "share",
    "power",
    "rate",
    *FRACTIONS,
}
"""Flags that may have a fraction."""
_SWITCHES = {"controls", "screen", "again", "retry_invalid", "measure", *FLAGS}
"""Flags that are on or off."""

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


def config(tokens: list[str]) -> tuple[list[str], tuple[Dict, ...]]:
    """Take `--config FILE` out of the tokens: a YAML file whose keys are the command's flags.

    Only `check` has a `--config` of its own, the model's; it keeps that.
    """
    for at, token in enumerate(tokens):
        name, joined, value = token.partition("=")
        if name == "--config":
            end = at + (1 if joined else 2)
            rest = tokens[:at] + tokens[end:]
            commands = app.parse_commands(rest)[0]
            if commands[:1] == ("check",):
                return rest + tokens[at:end], ()
            file = value if joined else next(iter(tokens[at + 1 : at + 2]), "")
            if not Path(file).is_file():
                raise LayeralignError(f"--config {file}: no such file; expected a YAML file")
            found = _read_config(Path(file))
            for command in reversed(commands):  # else a flag named as a command is dropped
                found = {command: found}
            return rest, (Dict(found, source=file),)
    return tokens, ()


def _read_config(file: Path) -> dict[str, Any]:
    """The file's flags; refuses what YAML would let slip: `yes` for a number, 1.5 for a count, nesting."""
    found, lines = strict_yaml.read(file, f"--config {file}")
    if not isinstance(found, dict):
        raise LayeralignError(f"--config {file}: expected `flag: value` lines, found {type(found).__name__}")
    for key, value in found.items():
        plain = isinstance(value, str | int) and not isinstance(value, bool)
        fraction = isinstance(value, float) and key in _FRACTIONS
        flag = isinstance(value, bool) and key in _SWITCHES
        if not (plain or fraction or flag):
            raise LayeralignError(
                f"--config {file}, line {lines[key,]}: {key!r} is {value!r}; expected a flag's name with a "
                f"text or a whole number (a fraction for {', '.join(sorted(_FRACTIONS))}; true or false for "
                f"{', '.join(sorted(_SWITCHES))})"
            )
    return found


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
