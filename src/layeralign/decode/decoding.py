"""How answers are generated, and what is answered."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from layeralign.cases.case import Case
from layeralign.errors import LayeralignError


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

    def __post_init__(self) -> None:
        """Refuse what cannot be decoded with."""
        if self.max_new_tokens < 1:
            raise LayeralignError(f"max_new_tokens {self.max_new_tokens}: expected at least 1")
        if not 0 <= self.temperature <= 100:
            raise LayeralignError(f"temperature {self.temperature}: expected 0 (greedy) to 100")
        if not 0 < self.top_p <= 1:
            raise LayeralignError(f"top_p {self.top_p}: expected above 0, at most 1")

    def record(self) -> dict[str, Any]:
        """As JSON would have it."""
        return {name: value for name, value in asdict(self).items() if name != "system" or value}


@dataclass(frozen=True)
class Answer:
    """What one case was answered at one exit."""

    case: Case
    exit: int
    text: str
    tokens: int
    """Length, its end token included."""
    finished: bool
    """Whether the model ended it itself."""
    sample: int = 0
    """Which of the case's answers at that exit."""
