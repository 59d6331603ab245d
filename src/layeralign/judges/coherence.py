"""Coherence of an answer: its perplexity under a language model, and its repetition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from layeralign.judges.judge import Exchange, Judge, Judgement
from layeralign.judges.kinds import COHERENCE, LOG_PERPLEXITY, REPETITION
from layeralign.judges.models.reference import Reference, load_reference

DEFAULT = "openai-community/gpt2"

RANDOM_SHARE = 0.5
"""Highest log perplexity of a coherent answer, as a share of ln(vocabulary), that of a random token."""
REPEATS = 0.5
"""Highest repetition of a coherent answer, 0 to 1."""
_N = 4
_EMPTY = Judgement("invalid", coherent=False, why="the answer is empty")
_UNKNOWN = Judgement("invalid", coherent=False, why="the language model knows no token of the answer")
_NOT_FINITE = Judgement("invalid", why="the language model's score is not a finite number")


def repetition(tokens: Sequence[int]) -> float:
    """Share of an answer's 4-grams that repeat an earlier one: 1 - distinct / all.

    This is seq-rep-4 of Welleck et al. 2020 (Neural text generation with unlikelihood training, section 6.1).

    Args:
        tokens: Token ids of one answer.

    Returns:
        The share, 0 to 1; 0 for answers of fewer than four tokens, which have no 4-gram.
    """
    grams = [tuple(tokens[at : at + _N]) for at in range(len(tokens) - _N + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


class CoherenceJudge(Judge):
    """Scores every answer with `log_perplexity` and `repetition`; coherent means both are within limits."""

    kind = COHERENCE

    def __init__(self, model: str, reference: Reference) -> None:
        self.model, self.reference = model, reference
        self.limit = RANDOM_SHARE * math.log(reference.vocabulary)

    @classmethod
    def load(cls, model: str) -> CoherenceJudge:
        """Load the judge with its reference model; see `load_reference`."""
        return cls(model, load_reference(model))

    @property
    def name(self) -> str:
        """See `Judge.name`."""
        return f"{self.kind}:{self.model}"

    def record(self) -> dict[str, Any]:
        """See `Judge.record`."""
        limits = {LOG_PERPLEXITY.name: self.limit, REPETITION.name: REPEATS}
        return {"kind": self.kind, "model": self.model, "limits": limits} | self.reference.record()

    def judge_all(self, asked: Sequence[Exchange]) -> list[Judgement]:
        """See `Judge.judge_all`."""
        found = [_EMPTY] * len(asked)
        nonempty = [at for at, (_, answer) in enumerate(asked) if answer.strip()]
        rows = [self.reference.row(asked[at][0].prompt, asked[at][1]) for at in nonempty]
        for at, row, costs in zip(nonempty, rows, self.reference.surprise(rows), strict=True):
            found[at] = self._word(row.ids[row.start :], costs)
        return found

    def _word(self, tokens: Sequence[int], costs: Sequence[float]) -> Judgement:
        if not tokens:
            return _UNKNOWN
        mean, repeats = math.fsum(costs) / len(costs), repetition(tokens)
        if not math.isfinite(mean):
            return _NOT_FINITE
        return Judgement(
            "not applicable",
            coherent=mean <= self.limit and repeats <= REPEATS,
            scores={LOG_PERPLEXITY.name: mean, REPETITION.name: repeats},
        )
