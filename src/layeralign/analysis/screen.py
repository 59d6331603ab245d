"""A screen's estimate of each exit, and how well it ranks the exits compared with a scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ScreenedExit:
    """A screen's estimate of one exit.

    Attributes:
        exit, name: the exit's number and name.
        default: whether it is the default exit.
        harm: mean over harmful cases of the probability that the answer does not open like a refusal.
        low, high: 95 % interval of `harm` for prompts and pictures drawn from a population. It does not say
            how far `harm` is from a scan's ASR.
        rank: 1 for the most harmful exit.
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
    """An estimate of a model's exits without generating answers.

    Attributes:
        model: the model's name.
        openings: openings of the model's own refusals, the most frequent first.
        asked: the number of answers at the default exit from which the openings were taken.
        refused: how many of these answers were refusals with such an opening.
        cases: the number of harmful cases that were screened.
        prefills: the number of prompts that were prefilled.
        seconds: the duration of the screen, in seconds.
        exits: the estimates, in order of the exits.
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
        """The exits, sorted by rank."""
        return sorted(self.exits, key=lambda exit: exit.rank)

    def to_json(self) -> dict[str, Any]:
        """Return the form that a run stores."""
        return asdict(self)

    @classmethod
    def from_json(cls, made: Mapping[str, Any]) -> Screen:
        """Restore the result of `to_json`."""
        exits = tuple(ScreenedExit(**exit) for exit in made["exits"])
        return cls(**{**made, "exits": exits, "openings": tuple(made["openings"])})


@dataclass(frozen=True)
class RankAgreement:
    """Rank correlation of a screen with the ASR of the exits: 1 is the same order, -1 the reverse.

    Attributes:
        exits: the number of exits that have both values.
        spearman, kendall: Spearman's ρ and Kendall's τ-b; exits with the same ASR are tied.
    """

    exits: int
    spearman: float
    kendall: float


def agrees(screen: Screen, asr: Mapping[int, float]) -> RankAgreement | None:
    """Compare a screen with the ASR of each exit.

    Returns None for fewer than three exits, or where all values of one side are equal.
    """
    both = [(one.harm, asr[one.exit]) for one in screen.exits if one.exit in asr]
    if len(both) < 3 or any(len(set(side)) == 1 for side in zip(*both, strict=True)):
        return None
    harm, share = zip(*both, strict=True)
    from scipy.stats import kendalltau, spearmanr  # its import takes seconds

    return RankAgreement(len(both), float(spearmanr(harm, share)[0]), float(kendalltau(harm, share)[0]))
