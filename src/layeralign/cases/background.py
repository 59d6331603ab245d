"""The colour behind transparent pictures, as `--background` takes it."""

from __future__ import annotations

import re

from layeralign._util.text import printable
from layeralign.errors import LayeralignError

WHITE = "#ffffff"
"""The default: the colour of a page, on which people look at such pictures."""
_NAMED = {"white": WHITE, "black": "#000000"}


def parse(given: str) -> str:
    """The colour as `#rrggbb` in lower case.

    Raises:
        LayeralignError: it is neither white, black nor `#rrggbb`.
    """
    colour = _NAMED.get(given.lower(), given.lower())
    if not re.fullmatch(r"#[0-9a-f]{6}", colour):
        raise LayeralignError(
            f"background {printable(repr(given), 60)}: expected white, black, or #rrggbb, such as #808080"
        )
    return colour


def identity(given: str) -> dict[str, str]:
    """The entry in a run's identity: none for white, so that older runs keep their identity."""
    colour = parse(given)
    return {} if colour == WHITE else {"background": colour}
