"""Which encoder layers to exit at: parsing, bounds, names and groups.

An exit is an index into the encoder's `hidden_states`: 0 is the patch embeddings, l is after
block l, L is after the last block. Nothing else in layeralign does arithmetic on layer numbers.

An encoder of several stages has tracks: the main one is counted as above, and every further way to
exit has numbers of its own after it. Llama 3.2 Vision has `local:0` to `local:32`, which are 0 to 32, and
`global:0` to `global:7`, which are 33 to 40.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from layeralign.errors import LayeralignError

_THIRDS = ("early", "middle", "late")
_GROUPS = ("embedding", *_THIRDS)

_NUMBER = re.compile(r"-?\d{1,6}")
_RANGE = re.compile(r"(\d{1,6})-(\d{1,6})")
_FORMS = "a number, a range such as 1-8, or one of all, default, embedding, early, middle, late"

ExitSpec = str | int | Sequence[int]
"""What a caller may write for exits: `18`, `-2`, `"default"`, `"all"`, `"early,20"`, `[1, 5]`."""


@dataclass(frozen=True)
class Track:
    """A further way to exit: `name:0` to `name:<exits - 1>`.

    `swept` says whether it is part of `all`.
    """

    name: str
    exits: int
    swept: bool = True


@dataclass(frozen=True)
class Exits:
    """The exits that an encoder has, with the one its model is used at.

    Attributes:
        layers: blocks of the main track, whose exits are 0 to `layers`.
        default: the exit that the model was made for.
        main: the main track's name, where there are others.
        tracks: the others, whose exits come after the main track's.
    """

    layers: int
    default: int
    main: str = ""
    tracks: tuple[Track, ...] = field(default=())

    @classmethod
    def from_json(cls, made: dict[str, Any]) -> Exits:
        """What `to_json` made."""
        return cls(**made | {"tracks": tuple(Track(**track) for track in made.get("tracks", ()))})

    def to_json(self) -> dict[str, Any]:
        """As a run keeps it."""
        plain = {"layers": self.layers, "default": self.default}
        if not self.tracks:
            return plain
        return plain | {"main": self.main, "tracks": [vars(track) for track in self.tracks]}

    @property
    def all(self) -> tuple[int, ...]:
        """Every exit that a sweep takes: the main track's, and those of the other swept tracks."""
        return tuple(exit for exit in range(self._end) if self._swept(exit))

    @property
    def groups(self) -> tuple[str, ...]:
        """Every group, in the order of the exits."""
        return (*_GROUPS, *(track.name for track in self.tracks))

    def group(self, exit: int) -> str:
        """The third of the blocks (1 to `layers`) that an exit lies in; 0 is `embedding`; else the track."""
        track, at = self.place(exit)
        if track != self.main:
            return track
        return "embedding" if at == 0 else _THIRDS[(at - 1) * 3 // self.layers]

    def name(self, exit: int) -> str:
        """What an exit is called: its number, with its track where there are several."""
        track, at = self.place(exit)
        return f"{track}:{at}" if track else str(at)

    def place(self, exit: int) -> tuple[str, int]:
        """An exit's track and its number there."""
        if exit <= self.layers:
            return self.main, exit
        for track in self.tracks:
            first = self._first(track.name)
            if exit < first + track.exits:
                return track.name, exit - first
        raise LayeralignError(f"exit {exit}: out of range; {self._bounds()}")

    def resolve(self, layer: int) -> int:
        """An index as transformers counts `hidden_states`, negative from the main track's end, made plain."""
        if isinstance(layer, bool) or not isinstance(layer, int):
            raise LayeralignError(f"exit {layer!r}: expected a whole number, not {_kind(layer)}")
        plain = layer + self.layers + 1 if layer < 0 else layer
        if not 0 <= plain < (self._end if layer >= 0 else self.layers + 1):
            raise LayeralignError(f"exit {layer}: out of range; {self._bounds()}")
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
            raise LayeralignError(f"exits {spec!r}: has no exit; expected {self._forms()}")
        twice = sorted({exit for exit in found if found.count(exit) > 1})
        if twice:
            raise LayeralignError(
                f"exits {spec!r}: exit {self.name(twice[0])} appears twice; expected each exit once"
            )
        return tuple(sorted(found))

    def _part(self, part: str, spec: str) -> list[int]:
        if part == "all":
            return list(self.all)
        if part == "default":
            return [self.default]
        if part in self.groups:
            return [exit for exit in range(self._end) if self.group(exit) == part]
        track, colon, numbers = part.partition(":")
        if colon:
            return [self._on_track(track, at, spec) for at in self._numbers(numbers, spec)]
        if self.main and part == self.main:
            return list(range(self.layers + 1))
        return [self.resolve(at) for at in self._numbers(part, spec)]

    def _numbers(self, text: str, spec: str) -> list[int]:
        if _NUMBER.fullmatch(text):
            return [int(text)]
        if match := _RANGE.fullmatch(text):
            first, last = (int(end) for end in match.groups())
            if first > last:
                raise LayeralignError(
                    f"exits {spec!r}: the range {text} is reversed; put the lower exit first"
                )
            return list(range(first, min(last, self._end) + 1))
        raise LayeralignError(f"exits {spec!r}: cannot read {text!r}; expected {self._forms()}")

    def _on_track(self, name: str, at: int, spec: str) -> int:
        if self.main and name == self.main and at <= self.layers:
            return self.resolve(at)
        for track in self.tracks:
            if track.name == name and 0 <= at < track.exits:
                return self._first(name) + at
        raise LayeralignError(f"exits {spec!r}: there is no exit {name}:{at}; {self._bounds()}")

    @property
    def _end(self) -> int:
        return self.layers + 1 + sum(track.exits for track in self.tracks)

    def _first(self, name: str) -> int:
        first = self.layers + 1
        for track in self.tracks:
            if track.name == name:
                return first
            first += track.exits
        raise KeyError(name)

    def _swept(self, exit: int) -> bool:
        name, _ = self.place(exit)
        return all(track.swept or track.name != name for track in self.tracks)

    def _bounds(self) -> str:
        plain = (
            f"this encoder has {self.layers} blocks, so exits 0 to {self.layers} "
            f"(or -{self.layers + 1} to -1)"
        )
        others = [f"{track.name}:0 to {track.name}:{track.exits - 1}" for track in self.tracks]
        return f"{plain}, and {', '.join(others)}" if others else plain

    def _forms(self) -> str:
        return _FORMS + "".join(f", {track.name}, {track.name}:0" for track in self.tracks)


def _kind(thing: object) -> str:
    return {"bool": "true or false"}.get(type(thing).__name__, f"a {type(thing).__name__}")
