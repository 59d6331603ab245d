"""RLOO and GRPO: L-PPO without a critic, in which the answers to one row are compared with each other.

Rollouts, rewards, KL, clipping and retention rows are those of L-PPO. Only the advantages differ, so a
comparison with L-PPO shows what the value head is worth. A row is answered `group` times, so a step has
fewer different rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from layeralign.training.algorithm import Meter
from layeralign.training.lppo import Experience, Lppo
from layeralign.training.policy import Outputs


def rloo(returns: Tensor) -> Tensor:
    """Return each answer's return minus the mean of the others' in its group; float32 [groups, size] of both.

    Source: Ahmadian et al. 2024, "Back to Basics", eq. 7 (REINFORCE leave-one-out).
    """
    size = returns.shape[1]
    return (returns - returns.mean(1, keepdim=True)) * size / (size - 1)


def grpo(returns: Tensor) -> Tensor:
    """Return (return - mean) / deviation over each group; float32 [groups, size] of both.

    Source: Shao et al. 2024, "DeepSeekMath", section 4.1.2. There the KL is part of the loss, here it is part
    of the return, as in L-PPO. A group of equal returns gets advantages of 0.
    """
    centred = returns - returns.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True).sqrt() + 1e-4)


class CriticFree(Lppo):
    """The methods `rloo` and `grpo`."""

    def add_advantages(self, experience: Sequence[Experience]) -> None:
        """Set the advantages: one number per answer, at each of its tokens."""
        returns = torch.zeros(sum(micro.n for micro in experience))
        for micro in experience:
            returns[micro.indices] = torch.where(micro.mask, micro.rewards, 0.0).sum(1).cpu()
        compare = rloo if self.settings.method == "rloo" else grpo
        advantages = compare(returns.view(-1, self.settings.group)).flatten()
        for micro in experience:
            micro.advantages = advantages[micro.indices].to(micro.rewards)[:, None] * micro.mask
            micro.returns = torch.zeros_like(micro.rewards)

    def log_values(self, experience: Sequence[Experience], meter: Meter) -> None:
        """Log nothing: there is no value head."""

    def value_loss(self, micro: Experience, outputs: Outputs) -> Tensor:
        """Return 0 for each token, since there is no value head to train; float32 [n, T]."""
        return torch.zeros_like(micro.advantages)
