"""How answers are generated, and what is answered."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from layeralign.cases.case import Case
from layeralign.errors import LayeralignError
from layeralign.vlm.text import reasoning, template

FinishReason = Literal["stop", "length", "reasoning", "non-finite"]
"""Why an answer ended: the model ended it; it reached the longest length; either of them within its
reasoning, so that there is no answer; or its logits were no finite numbers, so that nothing can be said."""


@dataclass(frozen=True)
class Decoding:
    """How answers are generated; part of a run's identity."""

    max_new_tokens: int = 128
    """Longest answer, in tokens."""
    temperature: float = 0.0
    """0 is greedy; above, answers are sampled."""
    top_p: float = 1.0
    """Share of the probability that sampling draws from."""
    system: str = ""
    """What the model is told before every prompt, in its template's system turn."""
    date: str = ""
    """The day that a chat template is told if it asks for one, as `2026-11-28`; empty where none asks."""
    special_tokens: Literal["literal", "parse"] = "literal"
    """Whether control tokens in a case's text, as `</s>`, are read as text or as what they mean to the
    model."""
    reasoning: str = "auto"
    """Marks before and behind the model's reasoning, as `<think> </think>`; `auto`: those that checkpoints
    are known to use; `none`: all that it writes is the answer."""

    def __post_init__(self) -> None:
        """Refuse what cannot be decoded with."""
        if self.max_new_tokens < 1:
            raise LayeralignError(f"max_new_tokens {self.max_new_tokens}: expected at least 1")
        if not 0 <= self.temperature <= 100:
            raise LayeralignError(f"temperature {self.temperature}: expected 0 (greedy) to 100")
        if not 0 < self.top_p <= 1:
            raise LayeralignError(f"top_p {self.top_p}: expected above 0, at most 1")
        if self.special_tokens not in ("literal", "parse"):
            raise LayeralignError(f"special_tokens {self.special_tokens!r}: expected literal or parse")
        if self.date:
            template.check_date(self.date)
        if self.reasoning not in ("auto", "none"):
            reasoning.parse(self.reasoning)

    def record(self) -> dict[str, Any]:
        """As JSON would have it."""
        return {
            name: value for name, value in asdict(self).items() if name not in ("system", "date") or value
        }


PLAIN = Decoding()
"""As nothing else is said."""


@dataclass(frozen=True)
class Answer:
    """What one case was answered at one exit."""

    case: Case
    exit: int
    text: str
    """What its user is told."""
    tokens: int
    """Length, reasoning and end token included."""
    finish_reason: FinishReason
    sample: int = 0
    """Which of the case's answers at that exit."""
    reasoning: str = ""
    """What the model wrote before it, between the marks of its reasoning."""
