"""Drawing of each step's rows, and their division into minibatches and microbatches.

Every draw is a function of (seed, step), so the step number is the whole state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layeralign.cases.case import Case
from layeralign.decode.sampling import seed_of
from layeralign.errors import LayeralignError
from layeralign.training.data.exit_mix import ExitMix
from layeralign.training.data.features import Row
from layeralign.training.settings import AlignSettings

_BUCKETS = 3
"""Number of microbatches, by answer length, in each of a minibatch's `accumulate` parts."""


@dataclass(frozen=True)
class StepRows:
    """One step's rows: those trained at drawn exits, and the retention rows at the default exit."""

    trained: list[Row]
    retention: list[Row]


class Batches:
    """Draws each step's rows from the training cases."""

    def __init__(
        self, cases: Sequence[Case], settings: AlignSettings, default: int, processes: int = 1
    ) -> None:
        self._settings, self._default = settings, default
        self._harmful = [case for case in cases if case.kind == "harmful"]
        self._others = [case for case in cases if case.kind != "harmful"]
        self._all = list(cases)
        n_retention = round(settings.rows * settings.retention_share)
        n_trained = (settings.rows - n_retention) // settings.answers_per_row
        n_harmful = round(n_trained * settings.harmful_share)
        self._sizes = n_harmful, n_trained - n_harmful, n_retention
        for n, pool, kind, why in (
            (n_harmful, self._harmful, "harmful", f"harmful_share {settings.harmful_share}"),
            (self._sizes[1], self._others, "benign or vqa", f"harmful_share {settings.harmful_share}"),
        ):
            if n and not pool:
                raise LayeralignError(f"cases: none is {kind}, and training needs some ({why})")
        if settings.harmful_share > 0 and n_harmful == 0:
            raise LayeralignError(f"rows {settings.rows}: too few, none of them would be harmful")
        if n_harmful + self._sizes[1] < processes * settings.minibatches:
            raise LayeralignError(
                f"rows {settings.rows}: too few are left to train on after the retention rows; expected at "
                f"least one for each of {settings.minibatches} minibatches in {processes} processes"
            )

    def draw(self, step: int, mix: ExitMix) -> StepRows:
        """Return the rows of a step (from 0): each case once before any case repeats, exits by `mix`."""
        n_harmful, n_others, _ = self._sizes
        rng = np.random.default_rng(seed_of(self._settings.seed, "exits", step))
        exits = [*mix.draw(rng, n_harmful), *mix.draw(rng, n_others)]
        retention = [(case, self._default) for case in self._retention(step)]
        return StepRows(list(zip(self._trained(step), exits, strict=True)), retention)

    def used(self, chunk: int) -> list[Case]:
        """Return the cases that the steps use, in order of first use.

        They are filled up to a multiple of `chunk` by those of the steps that would follow, if there are so
        many. So the first chunks are the same for every number of steps.
        """
        n_harmful, n_others, n_retention = self._sizes
        pools = [self._harmful] * bool(n_harmful) + [self._others] * bool(n_others)
        reachable = len(self._all) if n_retention else sum(map(len, pools))
        found: dict[str, Case] = {}
        step = 0
        while len(found) < reachable and (step < self._settings.steps or len(found) % chunk):
            for case in (*self._retention(step), *self._trained(step)):
                if step < self._settings.steps or len(found) % chunk:
                    found.setdefault(case.id, case)
            step += 1
        return list(found.values())

    def _trained(self, step: int) -> list[Case]:
        n_harmful, n_others, _ = self._sizes
        harmful = self._take("harmful", self._harmful, step * n_harmful, n_harmful)
        return harmful + self._take("others", self._others, step * n_others, n_others)

    def _retention(self, step: int) -> list[Case]:
        return self._take("kept", self._all, step * self._sizes[2], self._sizes[2])  # "kept" fixes the seed

    def _take(self, name: str, pool: list[Case], start: int, n: int) -> list[Case]:
        """Return items start to start + n of an endless sequence of shuffled passes over the pool."""
        found = []
        orders: dict[int, np.ndarray] = {}
        for position in range(start, start + n):
            turn, at = divmod(position, len(pool))
            if turn not in orders:
                rng = np.random.default_rng(seed_of(self._settings.seed, name, turn))
                orders[turn] = rng.permutation(len(pool))
            found.append(pool[orders[turn][at]])
        return found


def split(
    trained: Sequence[int], retention: Sequence[int], minibatches: int, parts: int
) -> list[list[tuple[list[int], list[int]]]]:
    """Return the row numbers of each minibatch's microbatches: (trained rows, retention rows).

    Rows of similar length share a microbatch, which reduces padding.

    Args:
        trained: answer length of each trained row, in tokens.
        retention: answer length of each retention row, in tokens.
        minibatches: the number of minibatches.
        parts: the number of parts of each minibatch for gradient accumulation.
    """
    made = []
    n = parts * _BUCKETS
    for i in range(minibatches):
        both = [
            sorted(range(i, len(lengths), minibatches), key=lengths.__getitem__)
            for lengths in (trained, retention)
        ]
        cuts = [[rows[k * len(rows) // n : (k + 1) * len(rows) // n] for k in range(n)] for rows in both]
        made.append([rows for rows in zip(*cuts, strict=True) if rows[0] or rows[1]])
    return made
