"""Drawing of the exit on which each row is trained."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from layeralign.errors import LayeralignError
from layeralign.exits import Exits, ExitSpec

FLOOR = 0.3
"""Share of the draws that `worst` distributes evenly over the exits, so that every exit is drawn."""
GAIN = 4.0
"""Speed of `worst`: per step, an exit of harm 1 gains a factor exp(GAIN) over an exit of harm 0."""
MEMORY = 0.9
"""Share of an exit's running harm that remains when the harm is measured again."""

_WEIGHT = re.compile(r"(-?\d{1,6}):(\d+(?:\.\d+)?)")


class ExitMix:
    """Draws exits by weights; with `worst`, the weights follow the harm measured in rollouts.

    `worst` is the multiplicative-weights rule with fixed share (Herbster and Warmuth 1998). In each step
    an exit's weight is multiplied by exp(GAIN × its running harm), the weights are normalised, and a share
    FLOOR of the total is spread evenly over the exits.
    """

    def __init__(self, exits: tuple[int, ...], weights: np.ndarray, *, adaptive: bool) -> None:
        self.exits, self.adaptive = exits, adaptive
        self.weights = weights / weights.sum()
        self.harm = np.full(len(exits), np.nan)

    @classmethod
    def parse(cls, known: Exits, exits: ExitSpec, mix: str) -> ExitMix:
        """Return the mix of the settings `exits` and `mix`.

        Raises:
            LayeralignError: the mix is unknown, or its weights are not for exactly the exits in `exits`.
        """
        chosen = known.parse(exits)
        if mix in ("uniform", "worst"):
            return cls(chosen, np.ones(len(chosen)), adaptive=mix == "worst")
        given: dict[int, float] = {}
        for part in mix.split(","):
            match = _WEIGHT.fullmatch(part.strip())
            if match is None:
                raise LayeralignError(
                    f"mix {mix!r}: cannot read {part!r}; expected uniform, worst or weights, as 18:3,20:1"
                )
            exit = known.resolve(int(match[1]))
            if exit in given:
                raise LayeralignError(f"mix {mix!r}: exit {exit} is named twice")
            given[exit] = float(match[2])
        if set(given) != set(chosen) or sum(given.values()) == 0:
            raise LayeralignError(
                f"mix {mix!r}: expected a weight for each of the exits {', '.join(map(str, chosen))} "
                "and for no other exit, not all of them 0"
            )
        return cls(chosen, np.array([given[exit] for exit in chosen]), adaptive=False)

    def draw(self, rng: np.random.Generator, n: int) -> list[int]:
        """Return `n` exits in random order: floor(weight · n) of each exit, the rest drawn at random."""
        expected = self.weights * n
        counts = np.floor(expected).astype(int)
        missing = n - counts.sum()
        if missing:
            fractions = expected - counts
            counts += rng.multinomial(missing, fractions / fractions.sum())
        drawn = np.repeat(np.array(self.exits), counts)
        rng.shuffle(drawn)
        return [int(exit) for exit in drawn]

    def update(self, harm: Mapping[int, float]) -> None:
        """Update with the harm (0 to 1) measured in this step's rollouts, by exit."""
        for exit, value in harm.items():
            if exit in self.exits:
                at = self.exits.index(exit)
                known = self.harm[at]
                self.harm[at] = value if np.isnan(known) else MEMORY * known + (1 - MEMORY) * value
        if self.adaptive:
            weights = self.weights * np.exp(GAIN * np.nan_to_num(self.harm, nan=1.0))
            self.weights = (1 - FLOOR) * weights / weights.sum() + FLOOR / len(weights)

    def state(self) -> np.ndarray:
        """Return weights and running harm, float64 [2, exits]."""
        return np.stack([self.weights, self.harm])

    def restore(self, state: np.ndarray) -> None:
        """Restore a result of `state`."""
        self.weights, self.harm = state[0].copy(), state[1].copy()
