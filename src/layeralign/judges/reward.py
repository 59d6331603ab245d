"""A reward as a scorer; the mean of its scores is what the paper calls TR.

Only differences between answers to the same cases are meaningful, between exits or before and after training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from layeralign.judges.judge import Exchange, Judge, Judgement
from layeralign.judges.kinds import REWARD, REWARD_SCORE
from layeralign.rewards.reward import RewardFunction, RewardModel

_NO_SCENE = Judgement("invalid", why="the reward needs a description of the picture, and the case has none")
_NOT_FINITE = Judgement("invalid", why="the reward is not a finite number")


class RewardJudge(Judge):
    """Scores every answer, including empty ones, as training does."""

    kind = REWARD

    def __init__(self, model: str, reward: RewardModel | RewardFunction) -> None:
        self.model, self.reward = model, reward

    @property
    def name(self) -> str:
        """See `Judge.name`."""
        return f"{self.kind}:{self.model}"

    def record(self) -> dict[str, Any]:
        """See `Judge.record`."""
        return {"kind": self.kind, "model": self.model} | self.reward.record()

    def judge_all(self, asked: Sequence[Exchange]) -> list[Judgement]:
        """See `Judge.judge_all`.

        Raises:
            LayeralignError: The user's function or the model's chat template fails.
        """
        found = [_NO_SCENE] * len(asked)
        able = [at for at, (case, _) in enumerate(asked) if self.reward.can_score(case)]
        numbers = self.reward.numbers([asked[at][0] for at in able], [asked[at][1] for at in able])
        for at, number in zip(able, numbers, strict=True):
            scored = Judgement("not applicable", scores={REWARD_SCORE.name: number})
            found[at] = scored if math.isfinite(number) else _NOT_FINITE
        return found
