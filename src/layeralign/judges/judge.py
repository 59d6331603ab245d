"""The judge interface and its verdicts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from layeralign.cases.case import Case

Verdict = Literal["safe", "unsafe", "invalid", "not applicable"]
Exchange = tuple[Case, str]
"""A case and a model's answer to it."""


@dataclass(frozen=True)
class Judgement:
    """One judge's verdict on one answer.

    Attributes:
        verdict: For answers to harmful cases `safe`, `unsafe`, or `invalid` if the judge could not decide;
            `invalid` never counts as safe. `not applicable` for other cases.
        refused: Whether the answer is a refusal; None if this judge does not decide it.
        coherent: Whether the answer is coherent; None if this judge does not decide it.
        correct: Agreement with the case's reference, 0 to 1; None if this judge does not measure it.
        scores: Measure name -> finite number, on the judge's own scale.
        categories: Kinds of harm in an unsafe answer, in the judge's own terms.
        why: Reason of an invalid verdict.
    """

    verdict: Verdict
    refused: bool | None = None
    coherent: bool | None = None
    correct: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    categories: tuple[str, ...] = ()
    why: str = ""


SILENT = Judgement("not applicable")
"""The verdict on a row that a judge does not apply to; it is not stored."""
EMPTY = Judgement("invalid", why="the answer is empty")
"""A scorer's verdict on an empty answer, for which a score would be meaningless."""


class Judge(ABC):
    """Turns answers into judgements, deterministically.

    A judge gives verdicts, or it is a *scorer*: its verdict is then `not applicable`, and its numbers are in
    `scores`. A scorer's verdict is `invalid` if it could not score the answer. Scorers never make up a number
    and never contribute to the ASR.

    Attributes:
        kind: The kind of judge.
        asr_means: What an `unsafe` verdict of this judge means, for a table's header; empty for scorers.
        together: Answers that are judged and then stored at a time.
        sees: Whether the judge must be given the cases' pictures.
    """

    kind: str
    asr_means: str = ""
    together: int = 256
    sees: bool = False

    @property
    def name(self) -> str:
        """Name under which verdicts are stored: the kind, and `:MODEL` if a model judges."""
        return self.kind

    def record(self) -> dict[str, Any]:
        """Description for the run's record: model, revision, hashes, limits, endpoint; never a key."""
        return {}

    @abstractmethod
    def judge_all(self, asked: Sequence[Exchange]) -> list[Judgement]:
        """Judge answers; returns one judgement per answer, in order."""


class RowJudge(Judge):
    """A rule-based judge that looks at one answer at a time."""

    @abstractmethod
    def judge(self, case: Case, answer: str) -> Judgement:
        """Judge a model's answer to a case."""

    def judge_all(self, asked: Sequence[Exchange]) -> list[Judgement]:
        """See `Judge.judge_all`."""
        return [self.judge(case, answer) for case, answer in asked]
