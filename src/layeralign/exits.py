"""Exits of an encoder: parsing, bounds, names and groups.

An exit is an index into the encoder's `hidden_states`: 0 is the patch embeddings, l is after block l, and L
is after the last block. All arithmetic on layer numbers is in this module.

An encoder with several stages has tracks. The main track is numbered as above; the exits of further tracks
follow. Llama 3.2 Vision has `local:0` to `local:32`, which are 0 to 32, and `global:0` to `global:7`, which
are 33 to 40.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from layeralign._util.text import printable
from layeralign.errors import LayeralignError

_THIRDS = ("early", "middle", "late")
_GROUPS = ("embedding", *_THIRDS)

_MOST = 100_000
"""Most blocks of an encoder."""
_NAME = re.compile(r"[a-z][a-z0-9]{0,19}")
"""Name of a track: pages and terminals show it as it is."""
_NUMBER = re.compile(r"-?\d{1,6}")
_RANGE = re.compile(r"(\d{1,6})-(\d{1,6})")
_FORMS = "a number, a range such as 1-8, or one of all, default, embedding, early, middle, late"

ExitSpec = str | int | Sequence[int]
"""Accepted forms of exits: `18`, `-2`, `"default"`, `"all"`, `"early,20"`, `[1, 5]`."""


@dataclass(frozen=True)
class Track:
    """A further track of exits, `name:0` to `name:<exits - 1>`.

    Attributes:
        name: Name of the track.
        exits: Number of exits.
        swept: Whether its exits are part of `all`.
    """

    name: str
    exits: int
    swept: bool = True


@dataclass(frozen=True)
class Exits:
    """The exits of an encoder and its default exit.

    Attributes:
        layers: Number of blocks of the main track, whose exits are 0 to `layers`.
        default: The exit that the model was trained with.
        main: Name of the main track; empty if there are no others.
        tracks: Further tracks, whose exits follow the main track's.
    """

    layers: int
    default: int
    main: str = ""
    tracks: tuple[Track, ...] = field(default=())

    @classmethod
    def from_json(cls, made: dict[str, Any]) -> Exits:
        """Create from the result of `to_json`.

        Raises:
            ValueError, TypeError: It is none.
            LayeralignError: A track has a name that no encoder of ours has.
        """
        found = cls(**made | {"tracks": tuple(Track(**track) for track in made.get("tracks", ()))})
        sizes = (found.layers, found.default, *(track.exits for track in found.tracks))
        if not all(type(size) is int and 0 <= size <= _MOST for size in sizes) or not found.layers:
            raise ValueError(f"an encoder has at most {_MOST} blocks, and at least one")
        names = [str(name) for name in (found.main, *(track.name for track in found.tracks))]
        if names != [""] and (len(set(names)) < len(names) or not all(map(_NAME.fullmatch, names))):
            raise LayeralignError(f"encoder: tracks {printable(repr(names), 80)}: expected lower-case words")
        found.place(found.default)
        return found

    def to_json(self) -> dict[str, Any]:
        """The JSON object that a run stores."""
        plain = {"layers": self.layers, "default": self.default}
        if not self.tracks:
            return plain
        return plain | {"main": self.main, "tracks": [vars(track) for track in self.tracks]}

    @property
    def all(self) -> tuple[int, ...]:
        """The exits of a full scan: the main track's and those of other swept tracks."""
        return tuple(exit for exit in range(self._end) if self._swept(exit))

    @property
    def groups(self) -> tuple[str, ...]:
        """All groups, in the order of the exits."""
        return (*_GROUPS, *(track.name for track in self.tracks))

    def group(self, exit: int) -> str:
        """An exit's group: `embedding` for 0, the third of the blocks on the main track, else the track."""
        track, at = self.place(exit)
        if track != self.main:
            return track
        return "embedding" if at == 0 else _THIRDS[(at - 1) * 3 // self.layers]

    def name(self, exit: int) -> str:
        """An exit's name: its number, with the track if there are several."""
        track, at = self.place(exit)
        return f"{track}:{at}" if track else str(at)

    def place(self, exit: int) -> tuple[str, int]:
        """An exit's track and its number in that track.

        Raises:
            LayeralignError: The exit is out of range.
        """
        if exit <= self.layers:
            return self.main, exit
        for track in self.tracks:
            first = self._first(track.name)
            if exit < first + track.exits:
                return track.name, exit - first
        raise LayeralignError(f"exit {exit}: out of range; {self._bounds()}")

    def resolve(self, layer: int) -> int:
        """Convert an index into `hidden_states`, negative from the main track's end, to an exit.

        Raises:
            LayeralignError: The index is out of range or not an integer.
        """
        if isinstance(layer, bool) or not isinstance(layer, int):
            raise LayeralignError(f"exit {layer!r}: expected a whole number, not {_kind(layer)}")
        plain = layer + self.layers + 1 if layer < 0 else layer
        if not 0 <= plain < (self._end if layer >= 0 else self.layers + 1):
            raise LayeralignError(f"exit {layer}: out of range; {self._bounds()}")
        return plain

    def parse(self, spec: ExitSpec) -> tuple[int, ...]:
        """Parse exits and return them in ascending order.

        Raises:
            LayeralignError: `spec` is empty, out of range or unreadable, or has an exit twice.
        """
        if isinstance(spec, str):
            found = [exit for part in spec.split(",") for exit in self._part(part.strip(), spec)]
        else:
            found = [self.resolve(spec)] if isinstance(spec, int) else [self.resolve(i) for i in spec]
        if not found:
            raise LayeralignError(f"exits {_shown(spec)}: has no exit; expected {self._forms()}")
        twice = sorted(exit for exit, times in Counter(found).items() if times > 1)
        if twice:
            raise LayeralignError(
                f"exits {_shown(spec)}: exit {self.name(twice[0])} appears twice; expected each exit once"
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
                    f"exits {_shown(spec)}: the range {text} is reversed; put the lower exit first"
                )
            return list(range(first, min(last, self._end) + 1))
        raise LayeralignError(f"exits {_shown(spec)}: cannot read {_shown(text)}; expected {self._forms()}")

    def _on_track(self, name: str, at: int, spec: str) -> int:
        if self.main and name == self.main and at <= self.layers:
            return self.resolve(at)
        for track in self.tracks:
            if track.name == name and 0 <= at < track.exits:
                return self._first(name) + at
        raise LayeralignError(f"exits {_shown(spec)}: there is no exit {name}:{at}; {self._bounds()}")

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


def _shown(spec: object) -> str:
    return printable(repr(spec), 80)


def _kind(thing: object) -> str:
    return {"bool": "true or false"}.get(type(thing).__name__, f"a {type(thing).__name__}")
