"""Checks that stop a training: a metric is not finite, or the policy has collapsed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

MAX_PROBLEMS = 5
"""Number of consecutive steps with a problem that stops a training."""
MAX_KL = 5.0
"""KL from the reference policy, in nats per token, above which the policies are considered unrelated."""
SHORT = 0.2
"""Share of the first step's mean length below which answers have collapsed; 1 token always counts as such."""
DROP = 3.0
"""Largest fall of the reward, in ranges of the first steps' mean rewards; a range is at least 1."""


def problem(history: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the problem of the newest step; None without a problem.

    Args:
        history: the metrics of every step, the oldest first.
    """
    now, first = history[-1], history[0]
    if name := _not_finite(now):
        return f"{name} is {now[name]}"
    if now.get("kl_per_token", 0.0) > MAX_KL:
        return f"KL from the reference policy is {now['kl_per_token']:.1f} nats per token"
    if "length" in now and now["length"] < max(SHORT * first["length"], 1.01) < first["length"]:
        return f"answers are {now['length']:.1f} tokens long, from {first['length']:.1f} at the start"
    rewards = [step["reward"] for step in history[:MAX_PROBLEMS] if "reward" in step]
    if rewards and len(history) > MAX_PROBLEMS:
        start = sum(rewards) / len(rewards)
        spread = max(1.0, max(rewards) - min(rewards))
        if now["reward"] < start - DROP * spread:
            return f"the mean reward is {now['reward']:.2f}, from {start:.2f} at the start"
    return None


def stop_reason(history: Sequence[Mapping[str, Any]]) -> str | None:
    """Return why the training must stop now, or None; a metric that is not finite stops it at once."""
    why = problem(history)
    if why is None or _not_finite(history[-1]):
        return why
    recent = [problem(history[: len(history) - back]) for back in range(min(MAX_PROBLEMS, len(history)))]
    return f"{why}, for {MAX_PROBLEMS} steps" if len(recent) == MAX_PROBLEMS and all(recent) else None


def _not_finite(metrics: Mapping[str, Any]) -> str | None:
    """Return the name of the first metric that is nan or infinite."""
    return next((k for k, v in metrics.items() if isinstance(v, float) and not math.isfinite(v)), None)
