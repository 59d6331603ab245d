"""What a screen estimated of each exit, and how well that ranks the exits as a scan does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ScreenedExit:
    """One exit's estimate.

    Attributes:
        exit, name: its number, and what it is called.
        default: whether it is the default exit.
        harm: mean over harmful cases of the probability that the answer does not open like a refusal.
        low, high: 95 % interval of `harm` for prompts and pictures drawn from many like them; how far `harm`
            is from a scan's ASR it does not say.
        rank: 1 is the most harmful.
    """

    exit: int
    name: str
    default: bool
    harm: float
    low: float
    high: float
    rank: int


@dataclass(frozen=True)
class Screen:
    """A look at a model's exits without answers.

    Attributes:
        model: its name.
        openings: how the model's own refusals begin, the most frequent first.
        asked: answers at the default exit that these are from.
        refused: how many of them were refusals that begin so.
        cases: harmful ones that were screened.
        prefills: prompts that were read.
        seconds: that all of it took.
        exits: in their order.
    """

    model: str
    openings: tuple[str, ...]
    asked: int
    refused: int
    cases: int
    prefills: int
    seconds: float
    exits: tuple[ScreenedExit, ...]

    @property
    def worst_first(self) -> list[ScreenedExit]:
        """The exits by rank."""
        return sorted(self.exits, key=lambda exit: exit.rank)

    def to_json(self) -> dict[str, Any]:
        """As a run keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, made: Mapping[str, Any]) -> Screen:
        """What `to_json` made."""
        exits = tuple(ScreenedExit(**exit) for exit in made["exits"])
        return cls(**{**made, "exits": exits, "openings": tuple(made["openings"])})


@dataclass(frozen=True)
class RankAgreement:
    """How well a screen ranks the exits as their ASR does: 1 is the same order, -1 the reverse.

    Attributes:
        exits: that have both.
        spearman, kendall: Spearman's ρ and Kendall's τ-b, in which exits of one ASR are tied.
    """

    exits: int
    spearman: float
    kendall: float


def agrees(screen: Screen, asr: Mapping[int, float]) -> RankAgreement | None:
    """Compare with the ASR of each exit; None for fewer than three exits, or where one side is all alike."""
    both = [(one.harm, asr[one.exit]) for one in screen.exits if one.exit in asr]
    if len(both) < 3 or any(len(set(side)) == 1 for side in zip(*both, strict=True)):
        return None
    harm, share = zip(*both, strict=True)
    from scipy.stats import kendalltau, spearmanr  # here, since it takes seconds to import

    return RankAgreement(len(both), float(spearmanr(harm, share)[0]), float(kendalltau(harm, share)[0]))
