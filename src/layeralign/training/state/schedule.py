"""The learning rate over the steps of a training."""

from __future__ import annotations

from torch.optim import Optimizer

WARM_UP = 10
"""Steps of the constant schedule's warm-up."""


def set_lr(optimizer: Optimizer, highest: float, step: int, steps: int, warm_up: int) -> float:
    """Set a step's learning rate: linear warm-up in `warm_up` steps, at least 1, then linear to zero."""
    warm_up = max(1, warm_up)
    share = min((step + 1) / warm_up, (steps - step) / max(1, steps - warm_up))
    return _set(optimizer, highest * share)


def set_constant_lr(optimizer: Optimizer, highest: float, step: int) -> float:
    """Set a step's learning rate: linear warm-up in `WARM_UP` steps, then `highest`, however many follow."""
    return _set(optimizer, highest * min(1.0, (step + 1) / WARM_UP))


def _set(optimizer: Optimizer, lr: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr
