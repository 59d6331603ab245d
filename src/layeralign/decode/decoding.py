"""Decoding settings and answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from cyclopts import Parameter

from layeralign._util.text import check_date
from layeralign.cases.case import Case
from layeralign.errors import LayeralignError
from layeralign.vlm.text import reasoning

FinishReason = Literal["stop", "length", "reasoning", "non-finite", "failed"]
"""Why an answer ended.

`stop`: the model ended it. `length`: it reached the length limit. `reasoning`: either of these happened
within its reasoning, so that there is no answer. `non-finite`: its logits were not finite.
"""


@Parameter(name="*")
@dataclass(frozen=True)
class Decoding:
    """Decoding settings; part of a run's identity."""

    max_new_tokens: int = 128
    """Length limit of an answer, in tokens."""
    temperature: float = 0.0
    """Sampling temperature, 0 to 100; 0 is greedy decoding."""
    top_p: float = 1.0
    """Share of the probability that sampling draws from, above 0, at most 1."""
    system: str = ""
    """System prompt, in the system turn of the model's chat template."""
    date: str = ""
    """Date for a chat template that asks for one, such as 2026-11-28; by default the first start's date."""
    special_tokens: Literal["literal", "parse"] = "literal"
    """How special tokens that are spelled out in a case's text are read: as text (literal), or as the tokens
    that they spell (parse)."""
    reasoning: str = "auto"
    """Marks before and after the model's reasoning, separated by a space; auto: the marks of known models;
    none: the model writes no reasoning."""

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.max_new_tokens < 1:
            raise LayeralignError(f"max_new_tokens {self.max_new_tokens}: expected at least 1")
        if not 0 <= self.temperature <= 100:
            raise LayeralignError(f"temperature {self.temperature}: expected 0 (greedy) to 100")
        if not 0 < self.top_p <= 1:
            raise LayeralignError(f"top_p {self.top_p}: expected more than 0 and at most 1")
        if self.special_tokens not in ("literal", "parse"):
            raise LayeralignError(f"special_tokens {self.special_tokens!r}: expected literal or parse")
        if self.date:
            check_date(self.date)
        if self.reasoning not in ("auto", "none"):
            reasoning.parse(self.reasoning)

    def record(self) -> dict[str, Any]:
        """The settings for a run's identity; `system` and `date` only if they are set."""
        return {
            name: value for name, value in asdict(self).items() if name not in ("system", "date") or value
        }


PLAIN = Decoding()
"""The default settings."""


@dataclass(frozen=True)
class Answer:
    """The answer to a case at an exit."""

    case: Case
    exit: int
    text: str
    """The answer without its reasoning."""
    tokens: int
    """Length in tokens, including reasoning and end token."""
    finish_reason: FinishReason
    sample: int = 0
    """Number of the answer to that case at that exit, from 0."""
    reasoning: str = ""
    """The reasoning before the answer, without its marks."""
