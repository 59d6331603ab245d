"""The loop: prepare a step, update, log, save; stop and go on at any moment."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from layeralign.cases import background
from layeralign.cases.case import Case
from layeralign.cases.pictures import on_background
from layeralign.decode import checks
from layeralign.errors import LayeralignError
from layeralign.exits import Exits
from layeralign.rewards.reward import Reward
from layeralign.training import checkpoint, health, log, record
from layeralign.training.baselines import Imitation
from layeralign.training.checkpoint import Training
from layeralign.training.exit_mix import ExitMix
from layeralign.training.lessons import Lessons, StartAnswers
from layeralign.training.lppo import Lppo
from layeralign.training.objective import Meter, Objective, Parts, Piece
from layeralign.training.parallel import Workers
from layeralign.training.policy import Policy
from layeralign.training.rollout import Features
from layeralign.training.settings import Settings
from layeralign.vlm.checkpoint import Adapter
from layeralign.vlm.vlm import Vlm

SAVE_EVERY, SAVE_SECONDS = 10, 120.0
"""Steps between checkpoints, and seconds, whichever comes first."""
_WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""


def train(
    vlm: Vlm, cases: Sequence[Case], reward: Reward | None, out: Path, given: Settings
) -> list[dict[str, Any]]:
    """Train an adapter of `vlm`, or go on with the one in `out`; leaves it there in PEFT's form.

    Args:
        vlm: freshly loaded, without adapter; it carries the trained adapter afterwards.
        cases: what to train on.
        reward: who scores answers; None for the methods that need none.
        out: folder of adapter, checkpoint, log and record.
        given: see `Settings`.

    Returns:
        Every step's metrics.

    Raises:
        LayeralignError: what was given does not fit, `out` holds another training, or the training
            collapsed; then the last good adapter is in `out`.
    """
    if vlm.adapter is not None:
        raise LayeralignError(f"model {vlm.name}: has an adapter already; load it anew, without")
    settings, workers = record.dated(out, vlm, given.resolved()), Workers()
    cases = on_background(cases, background.parse(settings.background))
    mix = check(vlm.exits, settings, reward)
    lessons = Lessons(cases, settings, vlm.exits.default, workers.size)
    for note in checks.check(vlm, cases, settings.decoding()):
        if workers.main:
            print(f"note: {note}", file=sys.stderr)
    made = record.record(vlm, cases, reward, settings, workers.size)
    workers.first(lambda: record.begin(out, made, cases))
    vlm.adapter = Adapter(str(out), out.resolve())  # from here on it is not the model that was loaded
    policy = Policy(vlm, settings.rank, settings.seed, gradient_checkpointing=settings.gradient_checkpointing)
    features = Features(vlm, cases, [*mix.exits, vlm.exits.default])
    start = StartAnswers(policy, features, settings.decoding())
    parts = Parts(policy, lessons, features, start, settings, workers)
    objective = Imitation(parts) if reward is None or not settings.rolls_out else Lppo(parts, reward)
    run = _Run(objective, mix, out)
    run.go()
    return run.history


def check(known: Exits, settings: Settings, reward: Reward | None) -> ExitMix:
    """The mix that the settings name.

    Raises:
        LayeralignError: the settings do not fit each other, the model's exits, or a missing reward.
    """
    mix = ExitMix.parse(known, settings.exits, settings.mix)
    if mix.adaptive and not settings.rolls_out:
        raise LayeralignError(f"mix worst: follows rollouts, and method {settings.method} makes none")
    if settings.rolls_out and reward is None:
        raise LayeralignError(
            f"reward: method {settings.method} needs one (--reward, docs/reward.md); "
            "--method consistency and --method sft train without"
        )
    return mix


class _Run:
    """One training's loop."""

    def __init__(self, objective: Objective, mix: ExitMix, out: Path) -> None:
        self._objective, self._mix, self._out = objective, mix, out
        self._policy, self._settings = objective.policy, objective.settings
        self._workers = objective.workers
        self._parameters = list(self._policy.trainable().values())
        self._optimizer = torch.optim.AdamW(self._parameters, weight_decay=0.0)
        self._training = Training(self._policy, self._optimizer, mix)
        self._done = checkpoint.restore(out, self._training)
        self.history = log.read(out, self._done)
        self._saved = time.monotonic()

    def go(self) -> None:
        """Every step that is left."""
        settings = self._settings
        if self._done < settings.steps:
            self._objective.begin(self._out)
            if self._done == 0 and self._workers.main:
                checkpoint.save(self._out, self._training, 0)
            with log.Log(self._out, self.history, settings.steps, speaks=self._workers.main) as told:
                for step in range(self._done, settings.steps):
                    told.add(self._step(step))
                    self._look(step, told)
        if self._workers.main:
            self._policy.save(self._out)
        self._workers.wait()

    def _step(self, step: int) -> dict[str, Any]:
        """Prepare, update, and say what was measured."""
        settings, meter, started = self._settings, Meter(), time.monotonic()
        plan = self._objective.lessons.plan(step, self._mix)
        weights = dict(zip(map(str, self._mix.exits), self._mix.weights.tolist(), strict=True))
        for group in self._optimizer.param_groups:
            group["lr"] = settings.rate * self._schedule(step)
        minibatches = self._objective.prepare(step, self._mix, meter)
        prepared = time.monotonic()
        updates = self._update(minibatches, meter)
        seconds = time.monotonic() - started
        tokens = sum(sum(self._counts(pieces)) for pieces in minibatches)
        return {
            "step": step,
            **meter.means(self._workers),
            "updates": updates,
            "rate": settings.rate * self._schedule(step),
            "seconds": seconds,
            "prepare_seconds": prepared - started,
            "tokens_per_second": tokens / seconds,
            "exits": {str(exit): n for exit, n in sorted(Counter(exit for _, exit in plan.trained).items())},
            "weights": weights,
        }

    def _counts(self, pieces: Sequence[Piece]) -> list[float]:
        """Trained and kept answer tokens of some pieces, over all processes."""
        return self._workers.total(*(float(sum(piece.counts()[i] for piece in pieces)) for i in (0, 1)))

    def _update(self, minibatches: Sequence[Sequence[Piece]], meter: Meter) -> int:
        """Epochs × minibatches optimiser steps; returns how many were taken."""
        settings, taken = self._settings, 0
        for _ in range(settings.epochs):
            for pieces in minibatches:
                counts, moved = self._counts(pieces), Meter()
                for piece in pieces:
                    self._objective.loss(piece, counts, moved).backward()
                self._workers.sum_gradients(self._parameters)
                norm = torch.nn.utils.clip_grad_norm_(self._parameters, settings.max_grad_norm)
                meter.add("grad_norm", float(norm), 1)
                meter.merge(moved)
                moved_kl = moved.means(self._workers).get("moved_kl", 0.0)
                if settings.target_kl is not None and moved_kl > settings.target_kl:
                    self._optimizer.zero_grad()
                    return taken
                if torch.isfinite(norm):
                    self._optimizer.step()
                self._optimizer.zero_grad()
                taken += 1
        return taken

    def _schedule(self, step: int) -> float:
        """Share of the highest learning rate: warm-up, then linear to zero."""
        steps = self._settings.steps
        warm = max(1, round(_WARM_UP * steps))
        return min((step + 1) / warm, (steps - step) / max(1, steps - warm))

    def _look(self, step: int, told: log.Log) -> None:
        """Save what is good; stop what has collapsed."""
        why = health.verdict(self.history)
        if why is not None:
            last = checkpoint.restore(self._out, self._training)
            if self._workers.main:
                self._policy.save(self._out)
            raise LayeralignError(
                f"training stopped at step {step}: {why}; the adapter after {last} steps, the last good "
                f"checkpoint, is in {self._out}; train anew with a lower --rate or a higher --eta"
            )
        ended = step + 1 == self._settings.steps
        late = time.monotonic() - self._saved > SAVE_SECONDS
        due = ((step + 1) % SAVE_EVERY == 0 or late) and health.doubt(self.history) is None
        if self._workers.main and (due or ended):
            told.sync()
            checkpoint.save(self._out, self._training, step + 1)
            self._saved = time.monotonic()
