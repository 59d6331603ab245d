"""Common parts of L-PPO and the baselines: a step's rows and microbatches, and its updates."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
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
from layeralign.training.reference import CHUNK, ReferenceAnswers
from layeralign.training.settings import AlignSettings
from layeralign.training.state.schedule import set_constant_lr, set_lr


class Meter:
    """A step's metrics: means of measurements over rows or tokens and over processes, and plain values.

    Attributes:
        step: the step's number.
        started: the time when the step began, from `time.monotonic`.
        plain: metrics that are not means, by name.
    """

    def __init__(self, step: int) -> None:
        self.step, self.started = step, time.monotonic()
        self.plain: dict[str, Any] = {}
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def add(self, name: str, total: float | Tensor, count: float) -> None:
        """Add `count` measurements whose sum is `total`."""
        self._sums[name][0] += float(total)
        self._sums[name][1] += count

    def merge(self, other: Meter) -> None:
        """Add the measurements of another meter."""
        for name, (total, count) in other._sums.items():
            self.add(name, total, count)

    def means(self, workers: Workers) -> dict[str, float]:
        """Map each name to its mean over all processes; names without a measurement are left out."""
        names = sorted({name for names in workers.gather([sorted(self._sums)]) for name in names})
        flat = workers.total(*(value for name in names for value in self._sums[name]))
        pairs = zip(names, flat[::2], flat[1::2], strict=True)
        return {name: total / count for name, total, count in pairs if count}

    def metrics(self, workers: Workers) -> dict[str, Any]:
        """Return all metrics of the step, as they are logged."""
        return {"step": self.step, **self.means(workers), **self.plain}


@dataclass
class Microbatch:
    """Rows of one forward pass: the trained rows first, then the retention rows.

    Attributes:
        rows: all rows.
        answers: their token ids.
        indices: positions of the trained rows among this process's trained rows of the step.
        batch: rows and answers as tensors.
        n: number of trained rows.
        tokens: int64 [n, T], the trained rows' answers.
        mask, retention_mask: bool [n, T] and [rows - n, T], the positions of answer tokens.
        counts: what the losses are means over: answer tokens of the trained rows (in DPO the rows), and
            answer tokens of the retention rows.
        reference_logits: float32 [rows - n, T, V], of the reference policy on the retention rows.
        outputs: the policy's outputs with their graph, if the first update can use them.
    """

    rows: list[Row]
    answers: list[Sequence[int]]
    indices: list[int]
    batch: Batch
    reference_logits: Tensor = field(init=False)
    outputs: Outputs | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Separate the trained rows from the retention rows."""
        self.n = len(self.indices)
        self.tokens = self.batch.answers[: self.n]
        mask = ppo.answer_mask(self.batch.lengths, self.batch.answers.shape[1])
        self.mask, self.retention_mask = mask[: self.n], mask[self.n :]
        self.counts = int(self.mask.sum()), int(self.retention_mask.sum())


M = TypeVar("M", bound=Microbatch)


@dataclass(eq=False)
class Algorithm(ABC, Generic[M]):
    """A training method: `step` prepares a step's microbatches and updates the policy on them.

    Attributes:
        policy: the trained policy.
        batches: draws the rows of each step.
        features: the picture features of the rows.
        reference: the reference policy's answers.
        mix: draws the exits.
        settings: the settings of the training.
        workers: the processes of the training.
    """

    policy: Policy
    batches: Batches
    features: Features
    reference: ReferenceAnswers
    mix: ExitMix
    settings: AlignSettings
    workers: Workers

    def __post_init__(self) -> None:
        """Create the optimiser."""
        self.parameters = self.policy.trainable()
        self.optimizer = torch.optim.AdamW(list(self.parameters.values()), weight_decay=0.0)

    def begin(self, out: Path) -> None:
        """Generate the reference answers; called once, before the first step that is done."""
        self.reference.make(self.batches.used(CHUNK), self.workers, out)

    @abstractmethod
    def step(self, number: int) -> dict[str, Any]:
        """Do one step; return its metrics."""

    @abstractmethod
    def loss(self, micro: M, outputs: Outputs, meter: Meter) -> Tensor:
        """Return the summed loss over the answer tokens of a microbatch's trained rows.

        `outputs` are the policy's outputs for these rows.
        """

    def seen(self, micro: M) -> Batch:
        """Return the batch that the policy reads in an update; a method may change the features."""
        return micro.batch

    def draw(self, meter: Meter) -> StepRows:
        """Draw this process's share of the step's rows; log the drawn exits and the weights of all exits."""
        rows, share = self.batches.draw(meter.step, self.mix), self.workers.share
        drawn = sorted(Counter(exit for _, exit in rows.trained).items())
        trained = [row for row in share(rows.trained) for _ in range(self.settings.answers_per_row)]
        weights = zip(map(str, self.mix.exits), self.mix.weights.tolist(), strict=True)
        meter.plain = {"exits": {str(exit): n for exit, n in drawn}, "weights": dict(weights)}
        return StepRows(trained, list(share(rows.retention)))

    def microbatches(self, kind: type[M], step: StepRows, answers: Sequence[Sequence[int]]) -> list[list[M]]:
        """Return the microbatches of each minibatch.

        Args:
            kind: the class of the microbatches.
            step: this process's rows of the step.
            answers: token ids of the answers to this process's trained rows.
        """
        references = [self.reference.tokens(case) for case, _ in step.retention]
        lengths, settings = ([*map(len, answers)], [*map(len, references)]), self.settings
        made: list[list[M]] = []
        for minibatch in split(*lengths, settings.minibatches, settings.accumulate):
            made.append([])
            for trained, retention in minibatch:
                rows = [*(step.trained[i] for i in trained), *(step.retention[i] for i in retention)]
                tokens = [*(answers[i] for i in trained), *(references[i] for i in retention)]
                made[-1].append(kind(rows, tokens, trained, self.collate(rows, tokens)))
        return made

    def collate(self, rows: Sequence[Row], answers: Sequence[Sequence[int]]) -> Batch:
        """Return rows, their answers and their features as tensors."""
        features, vlm = [self.features.of(row) for row in rows], self.policy.vlm
        return collate(vlm, prompts(vlm, rows, features, self.settings.decoding()), answers, features)

    @torch.no_grad()
    def reference_outputs(self, batch: Batch) -> Outputs:
        """Return the reference policy's outputs for a batch."""
        with self.policy.reference():
            outputs: Outputs = self.policy(batch)
        return outputs

    def _set_lr(self, step: int) -> float:
        """Set a step's learning rate by the schedule of the settings; return it."""
        settings = self.settings
        if settings.schedule == "constant":
            return set_constant_lr(self.optimizer, settings.lr, step)
        return set_lr(self.optimizer, settings.lr, step, settings.steps, round(0.05 * settings.steps))

    def update(self, minibatches: list[list[M]], meter: Meter) -> None:
        """Do epochs × minibatches optimiser steps; end early when the KL exceeds `target_kl`."""
        settings, prepared, updates = self.settings, time.monotonic(), 0
        lr = self._set_lr(meter.step)
        for minibatch in minibatches * settings.epochs:
            if not self._optimise(minibatch, meter):
                break
            updates += 1
        seconds = time.monotonic() - meter.started
        masks = [m for minibatch in minibatches for one in minibatch for m in (one.mask, one.retention_mask)]
        (tokens,) = self.workers.total(float(sum(int(mask.sum()) for mask in masks)))
        meter.plain = {
            "updates": updates,
            "lr": lr,
            "seconds": seconds,
            "prepare_seconds": prepared - meter.started,
            "tokens_per_second": tokens / seconds,
            **meter.plain,
        }

    def _optimise(self, minibatch: Sequence[M], meter: Meter) -> bool:
        """Do one optimiser step; return False, without a step, when the KL exceeds `target_kl`."""
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
        """Return the sums of `counts` over a minibatch and all processes."""
        return self.workers.total(*(float(sum(one.counts[i] for one in minibatch)) for i in (0, 1)))

    def _total_loss(self, microbatch: M, counts: Sequence[float], meter: Meter) -> Tensor:
        """Return a microbatch's part of its minibatch's loss; `counts` are those of the minibatch."""
        outputs, microbatch.outputs = microbatch.outputs or self.policy(self.seen(microbatch)), None
        n, mask = microbatch.n, microbatch.retention_mask
        loss = self.loss(microbatch, outputs.trained(n), meter) / max(counts[0], 1)
        if counts[1]:
            kl = ppo.masked_sum(ppo.full_kl(outputs.logits[n:], microbatch.reference_logits), mask)
            meter.add("retention_kl", kl.detach(), microbatch.counts[1])
            loss = loss + self.settings.retention_weight * kl / counts[1]
        return loss
