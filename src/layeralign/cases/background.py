"""The colour behind transparent pictures, as `--background` names it."""

from __future__ import annotations

import re

from layeralign.errors import LayeralignError
from layeralign.text import printable

WHITE = "#ffffff"
"""The default, which is what people see where they look at such a picture: on a page or a sheet."""
_NAMED = {"white": WHITE, "black": "#000000"}


def parse(given: str) -> str:
    """The colour as `#rrggbb` in lower case.

    Raises:
        LayeralignError: it is neither white, black nor `#rrggbb`.
    """
    colour = _NAMED.get(given.lower(), given.lower())
    if not re.fullmatch(r"#[0-9a-f]{6}", colour):
        raise LayeralignError(
            f"background {printable(repr(given), 60)}: expected white, black, or #rrggbb as #808080"
        )
    return colour


def recorded(given: str) -> dict[str, str]:
    """What of it a run's identity has: nothing where it is white, as in runs from before it was a flag."""
    colour = parse(given)
    return {} if colour == WHITE else {"background": colour}
