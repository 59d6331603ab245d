"""A mapping in a policy, whose every mistake is told with its place."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from layeralign._util.strict_yaml import Place
from layeralign._util.text import printable
from layeralign.errors import LayeralignError


@dataclass(frozen=True)
class Fields:
    """A mapping in a policy.

    Attributes:
        found: as it was read.
        keys: that it may have.
        name: the policy, for messages.
        lines: of all parts of the policy.
        at: where in it this is.
    """

    found: Mapping[Any, Any]
    keys: tuple[str, ...]
    name: str
    lines: Mapping[Place, int]
    at: Place

    def __post_init__(self) -> None:
        for key in self.found:
            if key not in self.keys:
                place = self.place(str(key))
                raise LayeralignError(
                    f"{place}: has the key {shown(key)}; expected some of {', '.join(self.keys)}"
                )

    @property
    def where(self) -> str:
        """Its place, in words."""
        return place_of(self.name, self.lines, self.at)

    def place(self, key: str) -> str:
        """A key's place, in words."""
        return place_of(self.name, self.lines, (*self.at, key))

    def refuse(self, key: str, what: str) -> NoReturn:
        """Say where, and what of a key is wrong."""
        raise LayeralignError(f"{self.place(key)}: {key} {what}")

    def one_of(self, keys: Sequence[str]) -> str:
        """The one of these keys that is there."""
        there = [key for key in keys if key in self.found]
        if len(there) != 1:
            has = f"both {there[0]} and {there[1]}" if there else f"none of {', '.join(keys)}"
            raise LayeralignError(f"{self.where}: has {has}; expected one of them")
        return there[0]

    def text(self, key: str) -> str | None:
        """A text that is not blank; None where the key is not there."""
        if key not in self.found:
            return None
        found = self.found[key]
        if not isinstance(found, str) or not found.strip():
            self.refuse(key, f"is {shown(found)}; expected a text")
        return found

    def choice(self, key: str, choices: Sequence[str]) -> str:
        """One of these."""
        found = self.found[key]
        if not isinstance(found, str) or found not in choices:
            self.refuse(key, f"is {shown(found)}; expected {', '.join(choices)}")
        return found

    def share(self, key: str, low: float) -> float:
        """A number from `low` to 1."""
        return self._number(key, low, 1.0, f"a share from {low:g} to 1 (0.15 is 15 %)")

    def number(self, key: str, low: float | None, high: float | None) -> float:
        """A finite number between these, where they are known."""
        ends = [f"{word} {end:g}" for word, end in (("at least", low), ("at most", high)) if end is not None]
        wanted = " of ".join(["a number", *([" and ".join(ends)] if ends else [])])
        least = -sys.float_info.max if low is None else low
        most = sys.float_info.max if high is None else high
        return self._number(key, least, most, wanted)

    def _number(self, key: str, low: float, high: float, wanted: str) -> float:
        found = self.found[key]
        if isinstance(found, bool) or not isinstance(found, int | float) or not low <= found <= high:
            self.refuse(key, f"is {shown(found)}; expected {wanted}")
        return float(found)


def place_of(name: str, lines: Mapping[Place, int], at: Place) -> str:
    """A place in a policy, in words: its line, as near as it is known, and its rule."""
    line = next((lines[at[:n]] for n in range(len(at), 0, -1) if at[:n] in lines), None)
    rule = f", rule {int(at[1]) + 1}" if len(at) > 1 else ""
    return f"{name}{f', line {line}' if line else ''}{rule}"


def shown(value: object) -> str:
    """A value, short, as YAML has it."""
    if value is None:
        return "nothing"
    return printable(repr(value).lower() if isinstance(value, bool) else repr(value), 60)


def kind_of(value: object) -> str:
    """What sort of thing a value is."""
    kinds = {"NoneType": "empty", "list": "a list", "str": "a text", "dict": "a mapping"}
    return kinds.get(type(value).__name__, shown(value))
