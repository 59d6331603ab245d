"""The command line: one thin command per verb.

Exit codes: 0 fine, 1 bad input, 130 stopped (143 by SIGTERM, 129 by SIGHUP); gate and check have 2 and 3
besides, see `gating`.
"""

from __future__ import annotations

import sqlite3
import sys
import traceback
import warnings
from io import TextIOWrapper

from cyclopts import CoercionError, CycloptsError, MissingArgumentError, UnusedCliTokensError

from layeralign._util import stopping, terminal
from layeralign._util.machine import settle_threads
from layeralign._util.text import has_lone_surrogate, printable
from layeralign.cli import config_file
from layeralign.cli.app import app, missing, unfit, unknown_flag, unused, whole_numbers
from layeralign.errors import LayeralignError

_LONGEST = 1000
"""Longest sentence, in characters: of a longer one, what and where, and how to fix it, are shown."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the process's exit code."""
    settle_threads()
    if opening := sys.modules.get("layeralign.runs.opening"):
        opening.DOUBTFUL.clear()  # of a command before this one, in this process
        opening.SEALED.clear()
    tokens = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in tokens
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that lacks a sign shows another for it
            stream.reconfigure(errors="replace")
    if not debug:
        warnings.simplefilter("ignore")  # of libraries; a user cannot act on them
    try:
        if strange := [token for token in tokens if has_lone_surrogate(token)]:  # from bytes that are no text
            raise LayeralignError(
                f"argument {strange[0]}: is not valid UTF-8; rename the file or folder, or retype the value"
            )
        tokens, found = config_file.take([token for token in tokens if token != "--debug"])
        app.config = (*found, whole_numbers)
        if tokens in ([], ["--help"], ["-h"]):
            app.resolved_commands()  # the list of commands shows the help of each
        code = app(tokens, exit_on_error=False, print_error=False)
    except (LayeralignError, CycloptsError) as error:
        return _fail(unknown_flag(tokens) or _said(error, tokens), debug)
    except KeyboardInterrupt as stop:
        return stopping.told(stop)
    except BrokenPipeError:
        return 1
    except OSError as error:
        return _fail(f"{printable(str(error.filename or 'a file'), 200)}: {error.strerror or error}", debug)
    except Exception as error:
        return _fail(_unexpected(error), debug)
    return code if isinstance(code, int) else 0


def _said(error: Exception, tokens: list[str]) -> str:
    """The message for bad input."""
    match error:
        case MissingArgumentError():
            return missing(error)
        case UnusedCliTokensError():
            return unused(error, tokens)
        case CoercionError():
            return unfit(error)
    return str(error)


def _unexpected(error: Exception) -> str:
    """The message for any other error: a bug of ours, unless a run or a model can be damaged."""
    what = f"{type(error).__name__}: {printable(str(error), 200)}"
    if library := _importing(error):
        return (
            f"{library} cannot be imported ({what}); correct the variables of the environment that it reads"
        )
    if type(error) in (sqlite3.DatabaseError, sqlite3.OperationalError):
        return (
            f"run.sqlite cannot be read or written ({what}); check that the file is intact, the disk has "
            "space, and no other command writes to it"
        )
    from layeralign.runs import damage, opening  # known already, if a run was opened

    if opening.DOUBTFUL and isinstance(error, damage.DAMAGE):
        return damage.unreadable(opening.DOUBTFUL[-1], error)
    if model := _asked(error):
        return (
            f"{model}: fails ({what}), as files that do not fit each other do; download it again, or, if its "
            "files are as published, report this with what --debug shows"
        )
    if isinstance(error, RecursionError):
        return f"an input is nested too deeply ({what}); expected fewer levels"
    other = "".join(
        f", or another program or version wrote run {run}, whose hash fits" for run in opening.SEALED[-1:]
    )
    return f"a bug in layeralign ({what}){other}; --debug shows where, please report it"


def _importing(error: Exception) -> str:
    """The package whose import raised an error; empty if none did, or if it is ours."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    for code in reversed(codes):
        _, installed, file = code.co_filename.replace("\\", "/").rpartition("/site-packages/")
        package = file.partition("/")[0].removesuffix(".py")
        if code.co_name == "<module>" and installed and package != "layeralign":
            return package
    return ""


def _asked(error: Exception) -> str:
    """The model or adapter that was loaded or asked where an error was raised; empty if none was."""
    if not {"layeralign.vlm.vlm", "layeralign.vlm.load"} & sys.modules.keys():
        return ""
    from layeralign.runs.store import Run
    from layeralign.vlm.checkpoint import Adapter, Checkpoint
    from layeralign.vlm.vlm import Vlm

    frames = [frame.f_locals.values() for frame, _ in traceback.walk_tb(error.__traceback__)]
    for values in reversed(frames):
        if any(isinstance(value, Run) for value in values):
            return ""
        for value in values:
            if isinstance(value, Vlm | Checkpoint | Adapter):
                kind = "adapter" if isinstance(value, Adapter) else "model"
                return printable(f"{kind} {value.name}")
    return ""


def _fail(message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    cut = f"{message[:700]} … {message[-250:]}" if len(message) > _LONGEST else message
    terminal.say(f"layeralign: {cut}", stderr=True)
    return 1
