"""Methods that learn from given answers.

`sft` and `sft-default` use cross-entropy on right answers. `consistency` uses the KL from the reference
policy to the trained policy, on the reference policy's own answers. The reference sees the default exit's
features, the trained policy those of the drawn exit. This method needs neither labels nor a reward.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from layeralign.training import ppo
from layeralign.training.algorithm import Algorithm, Meter, Microbatch
from layeralign.training.policy import Outputs
from layeralign.training.reference import right_answer


@dataclass
class Imitated(Microbatch):
    """A microbatch with the targets of its trained rows.

    Attributes:
        weights: float32 [n], the harm weight for a harmful row, 1 for other rows.
        target_logits: float32 [n, T, V], of the reference policy at the default exit; None for sft.
    """

    weights: Tensor = field(init=False)
    target_logits: Tensor | None = field(default=None, init=False)


class Imitation(Algorithm[Imitated]):
    """The methods `sft`, `sft-default` and `consistency`."""

    @property
    def matches_reference(self) -> bool:
        """Whether the target is the reference policy's distribution, not the right answer."""
        return self.settings.method in ("consistency", "repair")

    def step(self, number: int) -> dict[str, Any]:
        """Do one step of imitation; return its metrics."""
        meter = Meter(number)

        # 1. Draw rows: cases at drawn exits to train on, and retention rows at the default exit.
        rows = self.draw(meter)

        # 2. Take the answers to imitate.
        answers = [
            self.reference.tokens(case)
            if self.matches_reference
            else right_answer(self.policy, case, self.reference)
            for case, _ in rows.trained
        ]
        meter.add("length", sum(map(len, answers)), len(answers))

        # 3. Compute the reference policy's logits on all answers, at the default exit.
        minibatches = self.microbatches(Imitated, rows, answers)
        for micro in (micro for minibatch in minibatches for micro in minibatch):
            self._add_targets(micro)

        # 4. Update in epochs × minibatches: imitation loss (see `loss`), plus the KL on the retention rows.
        self.update(minibatches, meter)

        # 5. Log.
        return meter.metrics(self.workers)

    def _add_targets(self, micro: Imitated) -> None:
        settings, n, default = self.settings, micro.n, self.policy.vlm.exits.default
        weights = [settings.harm_weight if case.kind == "harmful" else 1.0 for case, _ in micro.rows[:n]]
        micro.weights = torch.tensor(weights, device=micro.mask.device)
        batch = self.collate([(case, default) for case, _ in micro.rows], micro.answers)
        logits = self.reference_outputs(batch).logits
        micro.reference_logits = logits[n:].clone()
        micro.target_logits = logits[:n].clone() if self.matches_reference else None

    def loss(self, micro: Imitated, outputs: Outputs, meter: Meter) -> Tensor:
        """Return the cross-entropy on the answers, or the KL to the target, weighted by row."""
        if micro.target_logits is None:
            loss = -ppo.token_log_probs(outputs.logits, micro.tokens)
        else:
            loss = ppo.full_kl(outputs.logits, micro.target_logits)
        meter.add("imitation_loss", ppo.masked_sum(loss.detach(), micro.mask), micro.counts[0])
        return ppo.masked_sum(loss * micro.weights[:, None], micro.mask)
