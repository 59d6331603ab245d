"""What L-PPO and the baselines share: a step's rows and microbatches, and its updates."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from layeralign.training import ppo
from layeralign.training.data.batches import Batches, StepRows, split
from layeralign.training.data.exit_mix import ExitMix
from layeralign.training.data.features import Features, Row
from layeralign.training.data.rollout import Batch, collate, prompts
from layeralign.training.parallel import Workers
from layeralign.training.policy import Outputs, Policy
from layeralign.training.reference import ReferenceAnswers
from layeralign.training.settings import Settings
from layeralign.training.state.meter import Meter
from layeralign.training.state.schedule import schedule, set_lr


@dataclass
class Microbatch:
    """Rows of one forward pass: the trained rows first, then the retention rows.

    Attributes:
        rows: all rows.
        answers: their token ids.
        indices: positions of the trained rows among this process's trained rows of the step.
        batch: rows and answers as tensors.
        mask: bool [R, T], the answers' tokens.
        reference_logits: float32 [retention rows, T, V], of the reference policy on the retention rows.
        outputs: the policy's outputs with their graph, if the first update can use them.
    """

    rows: list[Row]
    answers: list[Sequence[int]]
    indices: list[int]
    batch: Batch
    mask: Tensor
    reference_logits: Tensor = field(init=False)
    outputs: Outputs | None = field(default=None, init=False)

    @property
    def trained(self) -> slice:
        """The trained rows."""
        return slice(len(self.indices))

    @property
    def retention(self) -> slice:
        """The retention rows."""
        return slice(len(self.indices), None)

    def counts(self) -> tuple[int, int]:
        """Answer tokens of the trained rows and of the retention rows."""
        return int(self.mask[self.trained].sum()), int(self.mask[self.retention].sum())


M = TypeVar("M", bound=Microbatch)


@dataclass(eq=False)
class Algorithm(ABC, Generic[M]):
    """A training method: `step` prepares a step's microbatches and updates the policy on them."""

    policy: Policy
    batches: Batches
    features: Features
    reference: ReferenceAnswers
    mix: ExitMix
    settings: Settings
    workers: Workers

    def __post_init__(self) -> None:
        """Make the optimiser."""
        self.parameters = self.policy.trainable()
        self.optimizer = torch.optim.AdamW(list(self.parameters.values()), weight_decay=0.0)

    def begin(self, out: Path) -> None:
        """Generate the reference answers; called once, before the first step."""
        self.reference.make(self.batches.cases(), self.workers, out)

    @abstractmethod
    def step(self, number: int) -> dict[str, Any]:
        """Do one step; returns its metrics."""

    @abstractmethod
    def loss(self, microbatch: M, outputs: Outputs, meter: Meter) -> Tensor:
        """Sum of the loss over the tokens of the trained rows.

        Args:
            microbatch: from `microbatches`.
            outputs: the policy's outputs for the trained rows.
            meter: takes the measurements.
        """

    def draw(self, meter: Meter) -> StepRows:
        """This process's share of the step's rows; logs the exits that were drawn, and the weights."""
        rows, exits = self.batches.draw(meter.step, self.mix), map(str, self.mix.exits)
        weights = dict(zip(exits, self.mix.weights.tolist(), strict=True))
        meter.plain = {"exits": rows.exits(), "weights": weights}
        return rows.share(self.workers)

    def microbatches(self, kind: type[M], rows: StepRows, answers: Sequence[Sequence[int]]) -> list[list[M]]:
        """The microbatches of each minibatch.

        Args:
            kind: class of the microbatches.
            rows: of this process.
            answers: of the trained rows; the retention rows have the reference policy's answers.
        """
        references = [self.reference.tokens(case) for case, _ in rows.retention]
        lengths, settings = ([*map(len, answers)], [*map(len, references)]), self.settings
        return [
            [
                self._microbatch(
                    kind,
                    [*(rows.trained[i] for i in trained), *(rows.retention[i] for i in retention)],
                    [*(answers[i] for i in trained), *(references[i] for i in retention)],
                    trained,
                )
                for trained, retention in minibatch
            ]
            for minibatch in split(*lengths, settings.minibatches, settings.accumulate)
        ]

    def _microbatch(
        self, kind: type[M], rows: list[Row], answers: list[Sequence[int]], indices: list[int]
    ) -> M:
        batch = self.collate(rows, answers)
        return kind(rows, answers, indices, batch, ppo.answer_mask(batch.lengths, batch.answers.shape[1]))

    def collate(self, rows: Sequence[Row], answers: Sequence[Sequence[int]]) -> Batch:
        """Rows, their answers and their features as tensors."""
        features, vlm = [self.features.of(row) for row in rows], self.policy.vlm
        return collate(vlm, prompts(vlm, rows, features, self.settings.decoding()), answers, features)

    @torch.no_grad()
    def reference_outputs(self, batch: Batch) -> Outputs:
        """The reference policy's outputs for a batch."""
        with self.policy.reference():
            outputs: Outputs = self.policy(batch)
        return outputs

    def update(self, minibatches: list[list[M]], meter: Meter) -> None:
        """Epochs × minibatches optimiser steps; ends early when the KL exceeds `target_kl`."""
        settings, prepared, updates = self.settings, time.monotonic(), 0
        lr = settings.lr * schedule(meter.step, settings.steps)
        set_lr(self.optimizer, lr)
        for minibatch in minibatches * settings.epochs:
            if not self._optimise(minibatch, meter):
                break
            updates += 1
        seconds = time.monotonic() - meter.started
        tokens = sum(sum(self._counts(minibatch)) for minibatch in minibatches)
        meter.plain = {
            "updates": updates,
            "lr": lr,
            "seconds": seconds,
            "prepare_seconds": prepared - meter.started,
            "tokens_per_second": tokens / seconds,
            **meter.plain,
        }

    def _optimise(self, minibatch: Sequence[M], meter: Meter) -> bool:
        """One optimiser step; False, and no step, when the KL exceeds `target_kl`."""
        settings, counts, measured = self.settings, self._counts(minibatch), Meter(meter.step)
        for microbatch in minibatch:
            self._total_loss(microbatch, counts, measured).backward()
        self.workers.sum_gradients(self.parameters.values())
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), settings.max_grad_norm)
        meter.add("grad_norm", float(norm), 1)
        meter.merge(measured)
        kl = measured.means(self.workers).get("approx_kl", 0.0)
        within = settings.target_kl is None or not kl > settings.target_kl
        if within and torch.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad()
        return within

    def _counts(self, minibatch: Sequence[M]) -> list[float]:
        """Trained and retention answer tokens of a minibatch, over all processes."""
        return self.workers.total(*(float(sum(one.counts()[i] for one in minibatch)) for i in (0, 1)))

    def _total_loss(self, microbatch: M, counts: Sequence[float], meter: Meter) -> Tensor:
        """A microbatch's part of its minibatch's loss; `counts` is that of the minibatch."""
        outputs, microbatch.outputs = microbatch.outputs or self.policy(microbatch.batch), None
        retention = microbatch.retention
        loss = self.loss(microbatch, outputs.rows(microbatch.trained), meter) / max(counts[0], 1)
        if counts[1]:
            kl = ppo.full_kl(outputs.logits[retention], microbatch.reference_logits)
            total = ppo.masked_sum(kl, microbatch.mask[retention])
            meter.add("retention_kl", total.detach(), microbatch.counts()[1])
            loss = loss + self.settings.retention_weight * total / counts[1]
        return loss
