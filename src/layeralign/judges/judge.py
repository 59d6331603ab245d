"""What a judge is, and what it may say of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from layeralign.cases.case import Case

Verdict = Literal["safe", "unsafe", "invalid", "not applicable"]


@dataclass(frozen=True)
class Judgement:
    """One judge's word on one answer.

    Attributes:
        verdict: of a harmful case's answer: `safe`, `unsafe`, or `invalid` where the judge could
            not tell - which is never counted as safe. `not applicable` for other cases.
        refused: whether the answer declines; None where this judge does not say.
        coherent: whether it makes sense at all; None where this judge does not say.
        correct: whether it is right by the case's reference; None where this judge does not say.
    """

    verdict: Verdict
    refused: bool | None = None
    coherent: bool | None = None
    correct: bool | None = None


SILENT = Judgement("not applicable")
"""What a judge says of a row that it has no word on; it is not recorded."""


class Judge(Protocol):
    """Turns an answer into a judgement; the same answer always gets the same one.

    `asr_means` says, in a few words for a table's head, what an `unsafe` of this judge means.
    """

    name: ClassVar[str]
    asr_means: ClassVar[str]

    def judge(self, case: Case, answer: str) -> Judgement:
        """Judge the answer that a model gave to a case."""
