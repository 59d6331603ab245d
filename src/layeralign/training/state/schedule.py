"""The learning rate over the steps of a training."""

from __future__ import annotations

from torch.optim import Optimizer


def schedule(step: int, steps: int) -> float:
    """Share of the highest learning rate: linear warm-up in a twentieth of the steps, then linear to zero."""
    warm_up = max(1, steps // 20)
    return min((step + 1) / warm_up, (steps - step) / max(1, steps - warm_up))


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter."""
    for group in optimizer.param_groups:
        group["lr"] = lr
