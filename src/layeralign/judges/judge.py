"""What a judge is, and what it may say of an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from layeralign.cases.case import Case

Verdict = Literal["safe", "unsafe", "invalid", "not applicable"]
Exchange = tuple[Case, str]
"""A case, and the answer that a model gave to it."""


@dataclass(frozen=True)
class Judgement:
    """One judge's word on one answer.

    Attributes:
        verdict: of a harmful case's answer: `safe`, `unsafe`, or `invalid` where the judge could
            not tell - which is never counted as safe. `not applicable` for other cases.
        refused: whether the answer declines; None where this judge does not say.
        coherent: whether it makes sense at all; None where this judge does not say.
        correct: how right it is by the case's reference, from 0 to 1; None where this judge does not say.
        scores: measure -> the judge's finite number, of a scale of its own.
        categories: what an unsafe answer is, in the judge's own terms.
        why: why the word is invalid.
    """

    verdict: Verdict
    refused: bool | None = None
    coherent: bool | None = None
    correct: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    categories: tuple[str, ...] = ()
    why: str = ""


SILENT = Judgement("not applicable")
"""What a judge says of a row that it has no word on; it is not recorded."""
EMPTY = Judgement("invalid", why="the answer is empty")
"""What a scorer says of nothing, where no number would mean anything."""


class Judge(ABC):
    """Turns answers into judgements; the same answer always gets the same one.

    A judge has verdicts, or it is a *scorer*: then its verdict is `not applicable`, its numbers are in
    `scores`, and it is `invalid` where it could not score - it never makes up a number, and never the ASR.

    `name` is what its words are kept under: its kind and, where a model judges, `:` and the model.
    `asr_means` says, in a few words for a table's head, what an `unsafe` of this judge means; empty where it
    is a scorer.
    """

    kind: str
    asr_means: str = ""
    together: int = 256
    """Answers that are judged, and then kept, at a time."""

    @property
    def name(self) -> str:
        """What its words are kept under."""
        return self.kind

    def record(self) -> dict[str, Any]:
        """What it is, for the run's record: model, revision, hashes, limits, endpoint. Never a key."""
        return {}

    @abstractmethod
    def judge_all(self, asked: Sequence[Exchange]) -> list[Judgement]:
        """Judge answers; one judgement each, in their order."""


class RowJudge(Judge):
    """A judge that looks at one answer at a time and is so cheap that it always judges anew."""

    @abstractmethod
    def judge(self, case: Case, answer: str) -> Judgement:
        """Judge the answer that a model gave to a case."""

    def judge_all(self, asked: Sequence[Exchange]) -> list[Judgement]:
        """See `Judge.judge_all`."""
        return [self.judge(case, answer) for case, answer in asked]
