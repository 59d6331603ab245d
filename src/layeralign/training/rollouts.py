"""Where a training's answers are sampled: in this process, or on another engine in its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layeralign.cases.case import Case
from layeralign.decode.decoding import Decoding
from layeralign.decode.requests import Generation
from layeralign.training.data.features import Row
from layeralign.training.data.rollout import answers
from layeralign.training.policy import Policy
from layeralign.vlm.feature import Feature


class Rollouts:
    """Samples rollouts in this process; a subclass gives them to another engine.

    Log-probabilities always come from the policy itself, so an engine decides only which answers are drawn.
    """

    def record(self) -> dict[str, Any] | None:
        """What identifies the engine, for the training's record; None for this process."""
        return None

    def begin(self, policy: Policy, cases: Sequence[Case], decoding: Decoding, out: Path) -> None:
        """See that the engine answers as the policy, before the first step that is done.

        Args:
            policy: The policy.
            cases: The cases that the training uses.
            decoding: Greedy decoding with the settings of the training.
            out: The training's folder.

        Raises:
            LayeralignError: It does not.
        """

    def sample(
        self,
        policy: Policy,
        rows: Sequence[Row],
        features: Sequence[Feature | None],
        decoding: Decoding,
        seeds: Sequence[int],
    ) -> list[Generation[int]]:
        """Answer each row from the policy, without special tokens except the end token.

        Args:
            policy: The policy, whose adapter is used as it is now.
            rows: The rows.
            features: Features of each row's picture at its exit.
            decoding: Decoding settings.
            seeds: Seed of each row.

        Raises:
            LayeralignError: An answer cannot be used, or there is none.
        """
        with policy.merged():
            return answers(policy.vlm, rows, features, decoding, seeds=seeds, batch_size=len(rows))
