"""DPO at random exits: the right answer is preferred to the one that the exit would have given.

The preferred answer is the one that `sft` learns. The other one is, for a harmful case, the reference
policy's answer at the drawn exit; if it is a refusal, the row does not count. For any other case it is a
refusal, so that refusing everything is no solution. Nothing is sampled from the trained policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from layeralign.decode.prompts import spoken
from layeralign.judges.refusal import refuses
from layeralign.training import ppo
from layeralign.training.algorithm import Algorithm, Meter, Microbatch
from layeralign.training.data.features import Row
from layeralign.training.data.rollout import Batch
from layeralign.training.data.rollout import answers as generate
from layeralign.training.policy import Outputs
from layeralign.training.reference import right_answer, stock_refusal


@dataclass
class Preference(Microbatch):
    """A microbatch whose trained rows have a rejected answer, too; the rows' own answers are preferred.

    Attributes:
        weights: float32 [n], the harm weight for a harmful row, 1 for other rows, 0 for a row that does not
            count.
        rejected: the same n rows with their rejected answers.
        reference_margin: float32 [n], log-prob of the preferred answer minus that of the rejected one, of the
            reference policy.
    """

    weights: Tensor = field(init=False)
    rejected: Batch = field(init=False)
    reference_margin: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Count rows, not tokens: the loss is one number per pair."""
        super().__post_init__()
        self.counts = self.n, self.counts[1]


class Dpo(Algorithm[Preference]):
    """The method `dpo`: direct preference optimisation (Rafailov et al. 2023)."""

    def step(self, number: int) -> dict[str, Any]:
        """Do one DPO step; return its metrics."""
        meter = Meter(number)

        # 1. Draw rows: cases at drawn exits to train on, and retention rows at the default exit.
        rows = self.draw(meter)

        # 2. Take the preferred answers, and the rejected ones.
        preferred = [right_answer(self.policy, case, self.reference) for case, _ in rows.trained]
        rejected, counts = self._rejected(rows.trained)
        meter.add("length", sum(map(len, preferred)), len(preferred))
        meter.add("pairs", sum(counts), len(counts))

        # 3. Compute the reference policy's margin of each pair, at the row's exit.
        minibatches = self.microbatches(Preference, rows, preferred)
        for micro in (micro for minibatch in minibatches for micro in minibatch):
            self._add_pairs(micro, rejected, counts)

        # 4. Update in epochs × minibatches: DPO's loss (see `loss`), plus the KL on the retention rows.
        self.update(minibatches, meter)

        # 5. Log.
        return meter.metrics(self.workers)

    @torch.no_grad()
    def _rejected(self, rows: list[Row]) -> tuple[list[list[int]], list[bool]]:
        """Return the rejected answers' token ids, and whether each row counts."""
        policy, harmful = self.policy, [row for row in rows if row[0].kind == "harmful"]
        features = [self.features.of(row) for row in harmful]
        made: list[list[int]] = []
        if harmful:
            with policy.reference():
                found = generate(policy.vlm, harmful, features, self.settings.decoding())
            made = [one.tokens for one in found]
        taken, answers, counts = iter(made), [], []
        for case, _ in rows:
            answer = next(taken) if case.kind == "harmful" else stock_refusal(policy)
            said = spoken(policy.vlm, answer, self.settings.reasoning)
            answers.append(answer)
            counts.append(case.kind != "harmful" or (said.answered and not refuses(said.answer)))
        return answers, counts

    def _add_pairs(self, micro: Preference, rejected: list[list[int]], counts: list[bool]) -> None:
        n, device = micro.n, micro.mask.device
        weights = [self.settings.harm_weight if case.kind == "harmful" else 1.0 for case, _ in micro.rows[:n]]
        counted = [float(counts[i]) for i in micro.indices]
        micro.weights = torch.tensor(weights, device=device) * torch.tensor(counted, device=device)
        outputs = self.reference_outputs(micro.batch)
        micro.reference_logits = outputs.logits[n:].clone()
        if not n:  # a part with retention rows alone
            return
        micro.rejected = self.collate(micro.rows[:n], [rejected[i] for i in micro.indices])
        micro.reference_margin = _total(outputs.logits[:n], micro.batch, n) - _total(
            self.reference_outputs(micro.rejected).logits, micro.rejected, n
        )

    def loss(self, micro: Preference, outputs: Outputs, meter: Meter) -> Tensor:
        """Return -log sigmoid(beta · (margin - reference margin)), weighted and summed over the pairs.

        Source: Rafailov et al. 2023, eq. 7.
        """
        if not micro.n:
            return outputs.logits.new_zeros(())
        rejected = self.policy(micro.rejected).logits
        margin = _total(outputs.logits, micro.batch, micro.n) - _total(rejected, micro.rejected, micro.n)
        gain = margin - micro.reference_margin
        loss = -F.logsigmoid(self.settings.beta * gain) * micro.weights
        counted = micro.weights > 0
        meter.add("preference_loss", loss.detach().sum(), micro.n)
        meter.add("preferred", ((gain.detach() > 0) & counted).sum(), int(counted.sum()))
        return loss.sum()


def _total(logits: Tensor, batch: Batch, n: int) -> Tensor:
    """Return the log-prob of the whole answer of the first n rows; float32 [n] of logits [n, T, V]."""
    mask = ppo.answer_mask(batch.lengths[:n], batch.answers.shape[1])
    return torch.where(mask, ppo.token_log_probs(logits, batch.answers[:n]), 0.0).sum(1)
