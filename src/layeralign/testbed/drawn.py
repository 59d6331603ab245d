"""The invented worlds' pictures, drawn again from the ids of their cases."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_ID = re.compile(r"(testbed|natural)-(train|dev|test)-(\d{1,9})-(\d{5})")
_MOST = 5000
"""Number of a case from which its picture is not drawn again: every earlier case is made for it."""


def drawn(ids: Iterable[str]) -> dict[str, Any]:
    """Case id -> its picture, for the ids of this form; others are left out."""
    groups: dict[tuple[str, str, str], list[tuple[int, str]]] = {}
    for id in ids:
        if (match := _ID.fullmatch(id)) and int(match[4]) < _MOST:
            world, split, seed, number = match.groups()
            groups.setdefault((world, split, seed), []).append((int(number), id))
    found = {}
    for (world, split, seed), asked in groups.items():
        made = _cases(world)(split, max(asked)[0] + 1, int(seed))
        found.update({id: made[number].picture for number, id in asked})
    return found


def _cases(world: str) -> Any:
    if world == "natural":
        from layeralign.testbed.natural.cases import cases
    else:
        from layeralign.testbed.cases import cases
    return cases
