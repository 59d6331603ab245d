"""The learning rate over the steps of a training."""

from __future__ import annotations

from torch.optim import Optimizer


def set_lr(optimizer: Optimizer, highest: float, step: int, steps: int, warm_up: int) -> float:
    """Set a step's learning rate: linear warm-up in `warm_up` steps, at least 1, then linear to zero."""
    warm_up = max(1, warm_up)
    lr = highest * min((step + 1) / warm_up, (steps - step) / max(1, steps - warm_up))
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr
