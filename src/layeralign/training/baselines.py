"""What L-PPO has to beat: learning from given answers, on the same rows, exits and kept rows.

`sft` (and `sft-default`): cross-entropy on right answers. `consistency`: KL from what the start policy
says with the default exit's features to what the policy says with the drawn exit's, on the start
policy's own answers; it needs neither labels nor a reward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from layeralign.cases.case import Case
from layeralign.training import ppo
from layeralign.training.exit_mix import ExitMix
from layeralign.training.lessons import right_answer
from layeralign.training.objective import Meter, Objective, Piece
from layeralign.training.policy import Outputs
from layeralign.training.rollout import Row


@dataclass
class Lesson(Piece):
    """A piece with what is to be imitated.

    Attributes:
        weights: float32 [trained], the price for a harmful row, 1 for others.
        target_logits: float32 [trained, T, V] of the start policy at the default exit; None for sft.
    """

    weights: Tensor
    target_logits: Tensor | None


class Imitation(Objective):
    """`sft`, `sft-default` and `consistency`."""

    def prepare(self, step: int, mix: ExitMix, meter: Meter) -> list[list[Lesson]]:
        """See `Objective.prepare`."""
        plan = self.plan(step, mix)
        trained_answers = [self._answer(case) for case, _ in plan.trained]
        meter.add("length", sum(map(len, trained_answers)), len(trained_answers))
        return [
            [self._lesson(rows, answers, len(trained)) for trained, rows, answers in pieces]
            for pieces in self.rows_of_pieces(plan, trained_answers)
        ]

    def _answer(self, case: Case) -> list[int]:
        if self.settings.method == "consistency":
            return self.start.tokens(case)
        return right_answer(self.policy, case, self.start)

    def _lesson(self, rows: list[Row], answers: Sequence[Sequence[int]], n: int) -> Lesson:
        """A piece whose first `n` rows are trained; the start policy is asked at the default exit."""
        default = self.policy.vlm.exits.default
        batch = self.collate(rows, answers)
        start = self.reference(self.collate([(case, default) for case, _ in rows], answers)).logits
        target = start[:n].clone() if self.settings.method == "consistency" else None
        price = [self.settings.price if case.kind == "harmful" else 1.0 for case, _ in rows[:n]]
        mask = ppo.answer_mask(batch.lengths, batch.answers.shape[1])
        return Lesson(batch, n, mask, start[n:].clone(), torch.tensor(price, device=mask.device), target)

    def trained_loss(self, piece: Piece, outputs: Outputs, meter: Meter) -> Tensor:
        """See `Objective.trained_loss`."""
        assert isinstance(piece, Lesson)  # noqa: S101 - for the type checker; prepare made it
        if piece.target_logits is None:
            loss = -ppo.token_log_probs(outputs.logits, piece.batch.answers[: piece.trained])
        else:
            loss = ppo.full_kl(outputs.logits, piece.target_logits)
        mask = piece.mask[: piece.trained]
        meter.add("imitation_loss", ppo.masked_sum(loss.detach(), mask), piece.counts()[0])
        return ppo.masked_sum(loss * piece.weights[:, None], mask)
