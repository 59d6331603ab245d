"""Whether a judge of a run is what its model was trained against: such a judge is no witness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layeralign.runs.store import Run


def trained_against(run: Run) -> tuple[str, ...]:
    """Judges of a run that are the reward which its adapter was trained against, where that is recorded."""
    reward = run.reward
    if reward is None:
        return ()
    return tuple(name for name in run.judges() if _same(run.judge_record(name), reward))


def _same(judge: Mapping[str, Any], reward: Mapping[str, Any]) -> bool:
    """Whether two records are of one model: of the same weights, or the same function in the same file."""
    if weights := _weights(reward):
        return _weights(judge) == weights
    return judge.get("name") == reward.get("name") and judge.get("files") == reward.get("files")


def _weights(record: Mapping[str, Any]) -> set[str]:
    files = record.get("files") or {}
    return {str(hash) for name, hash in files.items() if name.endswith(".safetensors")}
