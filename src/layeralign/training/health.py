"""When a training has to stop: numbers that are none, or a policy that has collapsed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

PATIENCE = 5
"""Doubtful steps in a row that stop a training."""
MAX_KL = 5.0
"""Nats per token from the start policy: it says nothing any more that the start policy would say."""
SHORT = 0.2
"""Share of the first step's mean length, below which answers have collapsed; so have they at 1 token."""
DROP = 3.0
"""Spreads (of the first steps' mean reward, and at least 1) by which a reward may fall below them."""


def doubt(history: Sequence[Mapping[str, Any]]) -> str | None:
    """What is wrong with the newest step, in a few words; None where nothing is.

    Args:
        history: every step's metrics, oldest first.
    """
    now, first = history[-1], history[0]
    for name, value in now.items():
        if isinstance(value, float) and not math.isfinite(value):
            return f"{name} is {value}"
    if now.get("kl_per_token", 0.0) > MAX_KL:
        return f"KL from the start policy is {now['kl_per_token']:.1f} nats per token"
    if "length" in now and now["length"] < max(SHORT * first["length"], 1.01) < first["length"]:
        return f"answers are {now['length']:.1f} tokens long, from {first['length']:.1f} at the start"
    rewards = [step["reward"] for step in history[:PATIENCE] if "reward" in step]
    if rewards and len(history) > PATIENCE:
        start = sum(rewards) / len(rewards)
        spread = max(1.0, max(rewards) - min(rewards))
        if now["reward"] < start - DROP * spread:
            return f"the mean reward is {now['reward']:.2f}, from {start:.2f} at the start"
    return None


def verdict(history: Sequence[Mapping[str, Any]]) -> str | None:
    """Why the training has to stop now; None where it may go on. What is not finite stops at once."""
    why = doubt(history)
    if why is None:
        return None
    if " is nan" in why or " is inf" in why or " is -inf" in why:
        return why
    doubtful = [doubt(history[: len(history) - back]) for back in range(min(PATIENCE, len(history)))]
    return f"{why}, for {PATIENCE} steps" if len(doubtful) == PATIENCE and all(doubtful) else None
