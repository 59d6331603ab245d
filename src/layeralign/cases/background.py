"""The colour behind transparent pictures (`--background`)."""

from __future__ import annotations

import re

from layeralign._util.text import printable
from layeralign.errors import LayeralignError

WHITE = "#ffffff"
"""The default background."""
_NAMED = {"white": WHITE, "black": "#000000"}


def parse(given: str) -> str:
    """Convert a colour to `#rrggbb` in lower case.

    Raises:
        LayeralignError: The colour is not `white`, `black` or `#rrggbb`.
    """
    colour = _NAMED.get(given.lower(), given.lower())
    if not re.fullmatch(r"#[0-9a-f]{6}", colour):
        raise LayeralignError(
            f"background {printable(repr(given), 60)}: expected white, black, or #rrggbb, such as #808080"
        )
    return colour


def identity(given: str) -> dict[str, str]:
    """The background's entry in a run's identity; empty for white, the default."""
    colour = parse(given)
    return {} if colour == WHITE else {"background": colour}
