"""The command line's app and what its commands share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from attrs import evolve
from cyclopts import (
    App,
    ArgumentCollection,
    CoercionError,
    Group,
    MissingArgumentError,
    Parameter,
    RepeatArgumentError,
    Token,
    UnusedCliTokensError,
)

from layeralign import __version__
from layeralign._util import terminal
from layeralign._util.text import printable
from layeralign.errors import LayeralignError

if TYPE_CHECKING:
    from cyclopts.help import DefaultFormatter, HelpPanel
    from rich.console import Console, ConsoleOptions

    from layeralign.analysis.summary import Summary

FIND, JUDGE, CLOSE, SHIP = (
    Group(title, sort_key=at)
    for at, title in enumerate(("Find the hole", "Judge the answers", "Close the hole", "Ship the model"))
)
"""Groups of commands in --help."""

COMMANDS = {
    FIND: ("cases", "demo", "doctor", "inspect", "plan", "scan", "serve", "testbed"),
    JUDGE: ("calibrate", "judge", "label", "summary"),
    CLOSE: ("align", "reward", "transfer"),
    SHIP: ("card", "check", "compare", "export", "figure", "gate", "report", "verify", "watch"),
}
"""Group -> commands; a command's module is imported when the command runs."""


class _Help:
    """The help without what a reader does not need: the opposite of a flag that is off by default."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print a panel."""
        entries = [
            evolve(
                one,
                negative_names=one.negative_names if one.default == "True" else (),
                default=None if one.default in ("False", '""') else one.default,
            )
            for one in panel.entries
        ]
        self._default(console, options, panel.copy(entries=entries))

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """Print the line that shows how a command is called."""
        self._default.render_usage(console, options, usage)

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """Print what a command does."""
        self._default.render_description(console, options, description)

    @cached_property
    def _default(self) -> DefaultFormatter:
        from cyclopts.help import DefaultFormatter

        return DefaultFormatter()


app = App(
    name="layeralign",
    help="Find, measure and close the early-exit hole in vision-language models.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # main says how to resume
    default_parameter=Parameter(negative_iterable=(), json_list=False, json_dict=False),
    help_formatter=_Help(),
)
app.command(
    "layeralign.cli.completion:install", name="--install-completion",
    help="Install tab completion for bash, zsh or fish.",
)  # fmt: skip
for _group, _folder in ((FIND, "find"), (JUDGE, "judge"), (CLOSE, "close"), (SHIP, "ship")):
    for _name in COMMANDS[_group]:
        _found = f"layeralign.cli.{_folder}.{_name}:{_name}{'_app' if _name in ('reward', 'testbed') else ''}"
        app.command(_found, name=_name, group=_group)


_ELSEWHERE = {
    "--dataset": "--cases", "--gradient-accumulation-steps": "--accumulate", "--json": "--format",
    "--learning-rate": "--lr", "--lora": "--adapter", "--max-samples": "--limit",
    "--model-name-or-path": "--model", "--num-train-epochs": "--epochs",
}  # fmt: skip
"""Flag of Hugging Face's tools and others -> ours, where the letters do not show it."""


def unknown_flag(tokens: list[str]) -> str:
    """Return a sentence about the first flag that the command does not have; empty if there is none."""
    chain, apps, rest = app.parse_commands(tokens)
    if not chain or apps[-1].default_command is None:
        return ""
    command = " ".join(chain)
    known = [name for one in apps[-1].assemble_argument_collection() if one.parse for name in one.names]
    for token in rest:
        flag = token.partition("=")[0]
        name = flag.replace("_", "-")
        if re.match("--?[A-Za-z]", name) and name not in (*known, "--config", "--help", "-h", "--version"):
            same = [_ELSEWHERE[name]] if _ELSEWHERE.get(name) in known else []
            near = same or get_close_matches(name, known, n=1, cutoff=0.7)
            hint = f"did you mean {near[0]}? " if near else ""
            return f"{command}: {flag} is unknown; {hint}see layeralign {command} --help"
    return ""


def unused(error: UnusedCliTokensError, tokens: list[str]) -> str:
    """What a command has no place for."""
    chain, *_ = app.parse_commands(tokens)
    command, (first, *_) = " ".join(chain), error.unused_tokens or ["an argument"]
    return f"{command}: {first} is one argument too many; see layeralign {command} --help"


def missing(error: MissingArgumentError) -> str:
    """What was left out of a command, as a user writes it."""
    command, argument = " ".join(error.command_chain or ()), error.argument
    if argument is None:  # by its type it may be
        return str(error)
    given = bool(error.keyword or argument.tokens)
    positional = argument.field_info.is_positional and not given
    name = argument.field_info.name.upper() if positional else argument.name
    return f"{command}: {name} {'needs a value' if given else 'is missing'}; see layeralign {command} --help"


def repeated(error: RepeatArgumentError) -> str:
    """Which flag was given twice."""
    command, flag = " ".join(error.command_chain or ()), error.token.keyword
    return f"{command}: {flag} is given a second value; keep one of them; see layeralign {command} --help"


_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false"}


def unfit(error: CoercionError) -> str:
    """What is wrong with a flag's value, as a user writes it."""
    command, token, kind = " ".join(error.command_chain or ()), error.token, error.target_type
    choices = [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []
    expected = f"one of {', '.join(choices)}" if choices else _EXPECTED.get(kind) if kind else None
    if token is None or expected is None:
        return str(error)
    near = get_close_matches(token.value, choices, n=1)
    offer = f" (did you mean {near[0]}?)" if near else ""
    return _unfit(command, token, expected + offer)


def _unfit(command: str, token: Token, expected: str) -> str:
    value = printable(f"{token.keyword or ''} {token.value}".strip(), 80)
    return f"{command}: {value}: expected {expected}; see layeralign {command} --help"


def unchanged(_: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse values that cyclopts would change: it rounds, and takes an empty path for the working folder.

    Raises:
        LayeralignError: a whole number has a point, or a path is empty.
    """
    for argument in arguments:
        kind = get_args(argument.hint | None)[0]
        for token in argument.tokens:
            if kind is int and "." in token.value:
                raise LayeralignError(_unfit(" ".join(commands), token, _EXPECTED[int]))
            if Path in (kind, *get_args(kind)) and not token.value:
                raise LayeralignError(_unfit(" ".join(commands), token, "a path, but it is empty"))


def show(summary: Summary) -> None:
    """Print a run's table, as wide as there is room, and the tables of its controls and pairs."""
    from layeralign.report.terminal import controls
    from layeralign.report.terminal.summary import pairs, table

    to = terminal.console()
    terminal.put(table(summary, to.width), to=to)
    if summary.controls:
        terminal.put(controls.table(summary, to.width), to=to)
    if summary.pairs:
        terminal.put(pairs(summary), to=to)


def note(remarks: Iterable[str]) -> None:
    """Print notes on stderr, before a command's work begins."""
    for remark in remarks:
        terminal.say(f"note: {remark}", stderr=True)
