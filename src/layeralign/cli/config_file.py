"""`--config FILE`: a YAML file whose keys are the flags of a command, with `_` for `-`."""

from __future__ import annotations

import warnings
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from cyclopts import App
from cyclopts.config import Dict

from layeralign.cli.app import app
from layeralign.errors import LayeralignError

if TYPE_CHECKING:
    from layeralign._util.validation import Record

_NUMBERS = {bool: "true or false", int: "a whole number", float: "a number"}


def take(tokens: list[str]) -> tuple[list[str], tuple[Dict, ...]]:
    """Take `--config FILE` out of the tokens, and read the file.

    Only `check` has a `--config` of its own, the model's; it keeps that.
    """
    for at, token in enumerate(tokens):
        name, joined, value = token.partition("=")
        if name == "--config":
            end = at + (1 if joined else 2)
            rest = tokens[:at] + tokens[end:]
            commands = [word for word in app.parse_commands(rest)[0] if not word.startswith("-")]
            if commands[:1] == ["check"]:
                return rest + tokens[at:end], ()
            file = value if joined else next(iter(tokens[at + 1 : at + 2]), "")
            if not Path(file).is_file():
                raise LayeralignError(f"--config {file}: no such file; expected a YAML file")
            command: App = reduce(getitem, commands, app)
            if command.default_command is None:
                return rest, ()  # cyclopts says that the command is unknown or incomplete
            found = _read(Path(file), _flags(command))
            for word in reversed(commands):  # else a flag named as a command is dropped
                found = {word: found}
            return rest, (Dict(found, source=file),)
    return tokens, ()


def _read(file: Path, flags: type[Record]) -> dict[str, Any]:
    from layeralign._util import strict_yaml
    from layeralign._util.validation import validated  # pydantic and yaml, which --help must not need

    where = f"--config {file}"
    found, lines = strict_yaml.read(file, where)
    if not isinstance(found, dict):
        raise LayeralignError(f"{where}: expected `flag: value` lines, found {type(found).__name__}")
    validated(flags, found, lambda key: f"{where}, line {lines[key,]}", name=str)
    return found


def _flags(command: App) -> type[Record]:
    """Return the model of a command's file; no flag is required, as the command line may have it."""
    from pydantic import Field, create_model

    from layeralign._util.validation import Record

    fields: dict[str, Any] = {}
    for argument in command.assemble_argument_collection():
        if argument.name.startswith("--"):
            kind, expected = _value(argument.hint)
            fields[argument.name[2:].replace("-", "_")] = (kind, Field(None, description=expected))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the flag json, which is also a method of pydantic's models
        return create_model("Flags", __base__=Record, **fields)


def _value(hint: Any) -> tuple[Any, str]:
    """Return the type of a flag's value in YAML, and the expected value in words."""
    kind = get_args(hint | None)[0]  # of an optional flag the type that is not None
    if get_origin(kind) is Literal:
        return kind, ", ".join(get_args(kind))
    return (kind, _NUMBERS[kind]) if kind in _NUMBERS else (str | int, "a text")
