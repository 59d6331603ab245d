"""Baselines of L-PPO that learn from given answers, on the same rows, exits and retention rows.

`sft` and `sft-default`: cross-entropy on right answers. `consistency`: KL from the reference policy with the
default exit's features to the policy with the drawn exit's features, on the reference policy's own answers.
It needs neither labels nor a reward.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from layeralign.cases.case import Case
from layeralign.training import ppo
from layeralign.training.algorithm import Algorithm, Microbatch
from layeralign.training.policy import Outputs
from layeralign.training.reference import right_answer
from layeralign.training.state.meter import Meter


@dataclass
class Imitated(Microbatch):
    """A microbatch with what its trained rows imitate.

    Attributes:
        weights: float32 [trained rows], the harm weight for a harmful row, 1 for others.
        target_logits: float32 [trained rows, T, V], of the reference at the default exit; None for sft.
    """

    weights: Tensor = field(init=False)
    target_logits: Tensor | None = field(default=None, init=False)


class Imitation(Algorithm[Imitated]):
    """`sft`, `sft-default` and `consistency`."""

    def step(self, number: int) -> dict[str, Any]:
        """One step of imitation; returns its metrics."""
        meter = Meter(number)

        # 1. Draw rows: cases at drawn exits to train on, and retention rows at the default exit.
        rows = self.draw(meter)

        # 2. Take the answers to imitate.
        answers = [self._answer(case) for case, _ in rows.trained]
        meter.add("length", sum(map(len, answers)), len(answers))

        # 3. Compute the reference policy's logits on all answers, at the default exit.
        minibatches = self.microbatches(Imitated, rows, answers)
        for minibatch in minibatches:
            for microbatch in minibatch:
                self._add_targets(microbatch)

        # 4. Update in epochs × minibatches: imitation loss (see `loss`), plus the KL on the retention rows.
        self.update(minibatches, meter)

        # 5. Log.
        return meter.metrics(self.workers)

    def _answer(self, case: Case) -> list[int]:
        if self.settings.method == "consistency":
            return self.reference.tokens(case)
        return right_answer(self.policy, case, self.reference)

    def _add_targets(self, microbatch: Imitated) -> None:
        settings, rows, default = self.settings, microbatch.rows, self.policy.vlm.exits.default
        weights = [settings.harm_weight if case.kind == "harmful" else 1.0 for case, _ in rows]
        microbatch.weights = torch.tensor(weights[microbatch.trained], device=microbatch.mask.device)
        batch = self.collate([(case, default) for case, _ in rows], microbatch.answers)
        logits = self.reference_outputs(batch).logits
        microbatch.reference_logits = logits[microbatch.retention].clone()
        if settings.method == "consistency":
            microbatch.target_logits = logits[microbatch.trained].clone()

    def loss(self, microbatch: Imitated, outputs: Outputs, meter: Meter) -> Tensor:
        """Cross-entropy on the answers, or KL to the target; weighted by row."""
        if microbatch.target_logits is None:
            loss = -ppo.token_log_probs(outputs.logits, microbatch.batch.answers[microbatch.trained])
        else:
            loss = ppo.full_kl(outputs.logits, microbatch.target_logits)
        mask = microbatch.mask[microbatch.trained]
        meter.add("imitation_loss", ppo.masked_sum(loss.detach(), mask), microbatch.counts()[0])
        return ppo.masked_sum(loss * microbatch.weights[:, None], mask)
