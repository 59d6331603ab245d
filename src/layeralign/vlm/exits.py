"""Which encoder layers to exit at: parsing, bounds, names and groups.

An exit is an index into the encoder's `hidden_states`: 0 is the patch embeddings, l is after
block l, L is after the last block. Nothing else in layeralign does arithmetic on layer numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from layeralign.errors import LayeralignError

Group = Literal["embedding", "early", "middle", "late"]
_THIRDS: tuple[Group, ...] = ("early", "middle", "late")
GROUPS: tuple[Group, ...] = ("embedding", *_THIRDS)

_NUMBER = re.compile(r"-?\d{1,6}")
_RANGE = re.compile(r"(\d{1,6})-(\d{1,6})")
_FORMS = "a number, a range as 1-8, or one of all, default, embedding, early, middle, late"

ExitSpec = str | int | Sequence[int]
"""What a caller may write for exits: `18`, `-2`, `"default"`, `"all"`, `"early,20"`, `[1, 5]`."""


@dataclass(frozen=True)
class Exits:
    """The exits that an encoder of `layers` blocks has, with the one its model is used at."""

    layers: int
    default: int

    @property
    def all(self) -> tuple[int, ...]:
        """Every exit, 0 to `layers`."""
        return tuple(range(self.layers + 1))

    def group(self, exit: int) -> Group:
        """The third of the blocks (1 to `layers`) that an exit lies in; 0 is `embedding`."""
        return "embedding" if exit == 0 else _THIRDS[(exit - 1) * 3 // self.layers]

    def name(self, exit: int) -> str:
        """A short label for tables, the default marked."""
        return f"{exit} (default)" if exit == self.default else str(exit)

    def resolve(self, layer: int) -> int:
        """An index as transformers counts `hidden_states`, negative from the end, made plain."""
        if isinstance(layer, bool) or not isinstance(layer, int):
            raise LayeralignError(f"exit {layer!r}: expected a whole number, not {_kind(layer)}")
        plain = layer + self.layers + 1 if layer < 0 else layer
        if plain not in self.all:
            raise LayeralignError(
                f"exit {layer}: out of range; this encoder has {self.layers} blocks, so exits "
                f"0 to {self.layers} (or -{self.layers + 1} to -1)"
            )
        return plain

    def parse(self, spec: ExitSpec) -> tuple[int, ...]:
        """The exits that `spec` names, in rising order.

        Raises:
            LayeralignError: empty, out of range, not a number, or the same exit twice.
        """
        if isinstance(spec, str):
            found = [exit for part in spec.split(",") for exit in self._part(part.strip(), spec)]
        else:
            found = [self.resolve(spec)] if isinstance(spec, int) else [self.resolve(i) for i in spec]
        if not found:
            raise LayeralignError(f"exits {spec!r}: no exit is named; expected {_FORMS}")
        twice = sorted({exit for exit in found if found.count(exit) > 1})
        if twice:
            raise LayeralignError(f"exits {spec!r}: exit {twice[0]} is named twice")
        return tuple(sorted(found))

    def _part(self, part: str, spec: str) -> list[int]:
        if part == "all":
            return list(self.all)
        if part == "default":
            return [self.default]
        if part in GROUPS:
            return [exit for exit in self.all if self.group(exit) == part]
        if _NUMBER.fullmatch(part):
            return [self.resolve(int(part))]
        if match := _RANGE.fullmatch(part):
            first, last = (self.resolve(int(end)) for end in match.groups())
            if first > last:
                raise LayeralignError(f"exits {spec!r}: the range {part} runs backwards")
            return list(range(first, last + 1))
        raise LayeralignError(f"exits {spec!r}: cannot read {part!r}; expected {_FORMS}")


def _kind(thing: object) -> str:
    return {"bool": "true or false"}.get(type(thing).__name__, f"a {type(thing).__name__}")
