"""What every training method shares: a step's rows in pieces, and holding the default exit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from layeralign.training import ppo
from layeralign.training.exit_mix import ExitMix
from layeralign.training.lessons import Lessons, Plan, StartAnswers
from layeralign.training.parallel import Workers
from layeralign.training.policy import Outputs, Policy
from layeralign.training.rollout import Batch, Features, Row, collate, prompts
from layeralign.training.settings import Settings

_BUCKETS = 3
"""Pieces by length that a minibatch is computed in, for each of its `accumulate` parts."""


class Meter:
    """Means of what a step measured, over rows or tokens and over processes."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def add(self, name: str, total: float | Tensor, count: float) -> None:
        """Add `count` measurements that sum to `total`."""
        self._sums[name][0] += float(total)
        self._sums[name][1] += count

    def merge(self, other: Meter) -> None:
        """Add what another meter heard."""
        for name, (total, count) in other._sums.items():
            self.add(name, total, count)

    def means(self, workers: Workers) -> dict[str, float]:
        """Name -> mean; what was never measured by any process is left out."""
        names = sorted({name for names in workers.gather([sorted(self._sums)]) for name in names})
        flat = workers.total(*(value for name in names for value in self._sums[name]))
        pairs = zip(names, flat[::2], flat[1::2], strict=True)
        return {name: total / count for name, total, count in pairs if count}


@dataclass
class Piece:
    """Some of a step's rows as one forward pass sees them: first the trained, then the kept.

    Attributes:
        batch: of all of them.
        trained: how many are trained.
        mask: bool [R, T], the answers' tokens.
        kept_logits: float32 [kept, T, V], the start policy's on the kept rows.
        fresh: what the policy says now, with its graph, where that is known already.
    """

    batch: Batch
    trained: int
    mask: Tensor
    kept_logits: Tensor
    fresh: Outputs | None = field(default=None, kw_only=True)

    def counts(self) -> tuple[int, int]:
        """Answer tokens of the trained and of the kept rows."""
        return int(self.mask[: self.trained].sum()), int(self.mask[self.trained :].sum())


@dataclass(frozen=True)
class Parts:
    """What every training method works with."""

    policy: Policy
    lessons: Lessons
    features: Features
    start: StartAnswers
    settings: Settings
    workers: Workers


class Objective(ABC):
    """One training method: what a step's rows are, and what loss they have."""

    def __init__(self, parts: Parts) -> None:
        self.policy, self.lessons, self.features = parts.policy, parts.lessons, parts.features
        self.start, self.settings, self.workers = parts.start, parts.settings, parts.workers

    def begin(self, out: Path) -> None:
        """What is made once, before the first step: the start policy's answers at its default exit."""
        self.start.make(self.lessons.used(), self.workers, out)

    @abstractmethod
    def prepare(self, step: int, mix: ExitMix, meter: Meter) -> Sequence[Sequence[Piece]]:
        """This process's rows of a step: minibatches, each in pieces that are computed one by one."""

    @abstractmethod
    def trained_loss(self, piece: Piece, outputs: Outputs, meter: Meter) -> Tensor:
        """Sum of the loss over the trained rows' tokens; `outputs` are theirs alone."""

    def loss(self, piece: Piece, counts: Sequence[float], meter: Meter) -> Tensor:
        """A piece's part of its minibatch's loss.

        Args:
            piece: from `prepare`.
            counts: trained and kept tokens of the whole minibatch, over all processes.
            meter: hears what was measured.
        """
        outputs, piece.fresh = piece.fresh or self.policy(piece.batch), None
        trained, kept = slice(piece.trained), slice(piece.trained, None)
        loss = self.trained_loss(piece, outputs.rows(trained), meter) / max(counts[0], 1)
        if counts[1]:
            kl = ppo.full_kl(outputs.logits[kept], piece.kept_logits)
            held = ppo.masked_sum(kl, piece.mask[kept])
            meter.add("kept_kl", held.detach(), piece.counts()[1])
            loss = loss + self.settings.keep * held / counts[1]
        return loss

    def plan(self, step: int, mix: ExitMix) -> Plan:
        """This process's share of a step's rows."""
        plan = self.lessons.plan(step, mix)
        return Plan(list(self.workers.share(plan.trained)), list(self.workers.share(plan.kept)))

    def rows_of_pieces(
        self, plan: Plan, answers: Sequence[Sequence[int]]
    ) -> list[list[tuple[list[int], list[Row], list[Sequence[int]]]]]:
        """Each minibatch's pieces: numbers of the trained rows, then all rows, kept last, and answers.

        Args:
            plan: of this process.
            answers: of the trained rows; the kept ones have the start policy's.
        """
        kept_answers = [self.start.tokens(case) for case, _ in plan.kept]
        return [
            [
                (
                    trained,
                    [*(plan.trained[i] for i in trained), *(plan.kept[i] for i in kept)],
                    [*(answers[i] for i in trained), *(kept_answers[i] for i in kept)],
                )
                for trained, kept in cuts
            ]
            for cuts in self.split([*map(len, answers)], [*map(len, kept_answers)])
        ]

    def split(self, trained: Sequence[int], kept: Sequence[int]) -> list[list[tuple[list[int], list[int]]]]:
        """Row numbers of each minibatch's pieces, trained and kept, from the lengths of all rows.

        Rows of alike length go into one piece, so that little is padding.
        """
        n, parts = self.settings.minibatches, self.settings.accumulate * _BUCKETS
        minibatches = []
        for i in range(n):
            halves = [
                sorted(range(i, len(lengths), n), key=lengths.__getitem__) for lengths in (trained, kept)
            ]
            cuts = [[rows[k * len(rows) // parts : (k + 1) * len(rows) // parts] for k in range(parts)]
                    for rows in halves]  # fmt: skip
            minibatches.append([piece for piece in zip(*cuts, strict=True) if piece[0] or piece[1]])
        return minibatches

    def collate(self, rows: Sequence[Row], answers: Sequence[Sequence[int]]) -> Batch:
        """Rows with their answers and their features as tensors."""
        seen = [self.features.of(row) for row in rows]
        vlm = self.policy.vlm
        return collate(vlm, prompts(vlm, rows, seen, self.settings.decoding()), answers, seen)

    @torch.no_grad()
    def reference(self, batch: Batch) -> Outputs:
        """What the start policy says of a batch."""
        with self.policy.reference():
            found: Outputs = self.policy(batch)
        return found
