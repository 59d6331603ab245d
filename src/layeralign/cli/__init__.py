"""The command line: one thin command per verb.

Exit codes: 0 fine, 1 bad input, 130 stopped (143 by SIGTERM, 129 by SIGHUP); gate and check have 2 and 3
besides, see `gating`.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from io import TextIOWrapper

from cyclopts import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnusedCliTokensError,
)

from layeralign._util import stopping, terminal
from layeralign._util.machine import settle_threads
from layeralign._util.text import has_lone_surrogate, printable, without_keys
from layeralign.cli import config_file, unexpected
from layeralign.cli.app import app, missing, repeated, unchanged, unfit, unknown_flag, unused
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
        app.config = (*found, unchanged)
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
        return _fail(unexpected.told(error), debug)
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
        case RepeatArgumentError():
            return repeated(error)
    return str(error)


def _fail(message: str, debug: bool) -> int:
    if debug:
        sys.stderr.write(without_keys(traceback.format_exc()))
    message = without_keys(message)
    cut = f"{message[:700]} … {message[-250:]}" if len(message) > _LONGEST else message
    terminal.say(f"layeralign: {cut}", stderr=True)
    return 1
