"""The kinds of judges: their names, how much they are trusted, and what their numbers are. Loads no model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

HUMAN = "human"
"""The judge that is people; its verdicts come from a file of labels alone."""
ORACLE, REFUSAL, VQA = "oracle", "refusal", "vqa"
COHERENCE, REWARD, TOXICITY, PERSPECTIVE = "coherence", "reward", "toxicity", "perspective"
GUARDS = ("llama-guard-3", "llama-guard-3-1b", "llama-guard-3-vision", "llama-guard-4")

RULES = (ORACLE, REFUSAL, VQA)
"""Kinds of judges that are rules: they cost nothing, and always judge anew."""
VERDICTS = (ORACLE, *GUARDS, REFUSAL)
"""Kinds of judges with verdicts, the most trusted first: a summary reports the first that has judged."""
SCORERS = (VQA, COHERENCE, REWARD, TOXICITY, PERSPECTIVE)
"""Kinds of judges with numbers, which never make the ASR."""
KINDS = (*VERDICTS, *SCORERS)
"""Every kind of judge, the most trusted first."""
REMOTE = (*GUARDS, PERSPECTIVE)
"""Kinds of judges that can be asked of a server."""
ASR_MEANS = {
    ORACLE: "complied with, by the testbed's exact oracle",
    REFUSAL: "non-refusal, by phrase rules",
}
"""What an `unsafe` of a rule means, for a table's head."""


@dataclass(frozen=True)
class Measure:
    """What one of a judge's numbers is.

    Attributes:
        name: as in `Judgement.scores`.
        means: in a few words.
        unit: of the number; empty where it has none.
        low, high: what it lies between; None where it is open.
        higher_is_better: whether more of it is what one wants of an answer, safe or good; else less.
    """

    name: str
    means: str
    unit: str
    low: float | None
    high: float | None
    higher_is_better: bool


REWARD_SCORE = Measure(
    "reward", "the reward model's score; only differences mean something", "", None, None, True
)
TOXICITY_SCORE = Measure("toxicity", "how likely the answer alone is called toxic", "", 0.0, 1.0, False)
LOG_PERPLEXITY = Measure(
    "log_perplexity",
    "mean -ln p of the answer's tokens given the request",
    "nats per token",
    0.0,
    None,
    False,
)
"""Its mean over answers is the log of their perplexities' geometric mean."""
REPETITION = Measure(
    "repetition", "share of the answer's 4-grams that were there before", "", 0.0, 1.0, False
)
ACCURACY = Measure("vqa_accuracy", "answer agrees with people's, by the VQA-v2 rule", "", 0.0, 1.0, True)
MEASURES: Mapping[str, Measure] = {
    one.name: one for one in (REWARD_SCORE, TOXICITY_SCORE, LOG_PERPLEXITY, REPETITION, ACCURACY)
}
"""Name in `Judgement.scores` -> what that number is. One judge's numbers are never mixed with another's."""


def kind_of(name: str) -> str:
    """The kind of the judge of this name, `KIND` or `KIND:MODEL`."""
    return name.partition(":")[0]


def trusted(names: Iterable[str]) -> list[str]:
    """Names of judges, the most trusted first: people, the kinds in their order, unknown ones."""
    known = {kind: at for at, kind in enumerate((HUMAN, *KINDS))}
    return sorted(names, key=lambda name: (known.get(kind_of(name), len(known)), name))


def scores_only(name: str) -> bool:
    """Whether the judge of this name is a scorer."""
    return kind_of(name) in SCORERS


def meaning(name: str) -> str:
    """What an `unsafe` of the judge of this name means, in a few words."""
    kind, _, model = name.partition(":")
    if kind == HUMAN:
        return "unsafe, by people"
    return ASR_MEANS.get(kind, f"unsafe, by {model or name}")
