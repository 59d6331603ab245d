"""The kinds of judges: their names, their order of trust, and their measures. Loads no model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from layeralign.errors import LayeralignError

HUMAN = "human"
"""Human labels; these verdicts come only from a file of labels."""
ORACLE, TOPIC, REFUSAL, VQA = "oracle", "topic", "refusal", "vqa"
COHERENCE, REWARD, TOXICITY, PERSPECTIVE = "coherence", "reward", "toxicity", "perspective"
LLM = "llm"
"""Any model on a server, asked by a rubric."""
GUARDS = (
    "qwen3guard", "qwen3guard-8b", "wildguard", "nemotron-safety",
    "llama-guard-3", "llama-guard-3-1b", "llama-guard-3-vision", "llama-guard-4",
    "harmbench", "granite-guardian",
)  # fmt: skip
"""Guards by their published F1 on the answers of WildGuardTest; those without one come last."""

RULES = (ORACLE, TOPIC, REFUSAL, VQA)
"""Kinds of rule-based judges; they are cheap and judge again whenever a case changes."""
READ_FACTS = (*RULES, REWARD)
"""Kinds of judges that read of a case what no model sees: its category, reference or facts."""
VERDICTS = (ORACLE, TOPIC, *GUARDS, LLM, REFUSAL)
"""Kinds of judges with verdicts, most trusted first; a summary reports the first that has judged."""
SCORERS = (VQA, COHERENCE, REWARD, TOXICITY, PERSPECTIVE)
"""Kinds of judges with scores; they never contribute to the ASR."""
KINDS = (*VERDICTS, *SCORERS)
"""All kinds of judges, most trusted first."""
REMOTE = (*GUARDS, LLM, PERSPECTIVE)
"""Kinds of judges that can run on a server."""
ASR_MEANS = {
    ORACLE: "complied with, by the testbed's exact oracle",
    TOPIC: "answered, by the natural testbed's topic rule",
    REFUSAL: "non-refusal, by phrase rules",
}
"""Meaning of an `unsafe` verdict of a rule, for a table's header."""
VERDICT_WORDS = {
    ORACLE: ("complied", "did not comply"),
    TOPIC: ("answered", "not answered"),
    REFUSAL: ("not refused", "refused"),
}
"""What a rule says with `unsafe` and with `safe`; the words of every other judge are these two."""

REFUSAL_MEASURED = (
    "refusals found, on 80 answers in each language held out while its rules were made: English precision "
    "100 % (86–100), recall 60 % (45–74); Spanish, French, German and Chinese 96 % (88–99), 43 % (36–51)"
)
"""Quality of the refusal matcher, as in docs/judges.md; `benchmarks/refusal_matcher.py` measures it."""


@dataclass(frozen=True)
class Measure:
    """Description of one of a judge's scores.

    Attributes:
        name: Name in `Judgement.scores`.
        means: Meaning, in a few words.
        unit: Unit of the score; empty if it has none.
        low: Lower bound; None if there is none.
        high: Upper bound; None if there is none.
        higher_is_better: Whether higher scores mean a safer or better answer.
    """

    name: str
    means: str
    unit: str
    low: float | None
    high: float | None
    higher_is_better: bool


REWARD_SCORE = Measure(
    "reward", "the reward model's score; only differences are meaningful", "", None, None, True
)
TOXICITY_SCORE = Measure("toxicity", "probability that the answer alone is toxic", "", 0.0, 1.0, False)
LOG_PERPLEXITY = Measure(
    "log_perplexity",
    "mean -ln p of the answer's tokens given the request",
    "nats per token",
    0.0,
    None,
    False,
)
"""Its mean over answers is the log of the geometric mean of their perplexities."""
REPETITION = Measure(
    "repetition", "share of the answer's 4-grams that repeat an earlier one", "", 0.0, 1.0, False
)
ACCURACY = Measure("vqa_accuracy", "answer agrees with people's, by the VQA-v2 rule", "", 0.0, 1.0, True)
HARM = Measure("harm", "how harmful the answer is, by the rubric's grades", "", 0.0, 1.0, False)
CONTROVERSIAL = Measure(
    "controversial", "share of controversial answers, which count as unsafe", "", 0.0, 1.0, False
)
MEASURES: Mapping[str, Measure] = {
    one.name: one
    for one in (REWARD_SCORE, TOXICITY_SCORE, LOG_PERPLEXITY, REPETITION, ACCURACY, HARM, CONTROVERSIAL)
}
"""Name in `Judgement.scores` -> its description. Scores of different judges are never mixed."""


def kind_of(name: str) -> str:
    """The kind of a judge's name, `KIND` or `KIND:MODEL`."""
    return name.partition(":")[0]


def check_names(names: Sequence[str]) -> None:
    """Refuse names of judges that are unknown or given twice.

    Raises:
        LayeralignError: a name is wrong; the message says which.
    """
    for name in names:
        kind = kind_of(name)
        if kind == HUMAN:
            raise LayeralignError(
                f"judge {name!r}: is human labels; import them with layeralign label RUN --import FILE"
            )
        if kind not in KINDS:
            raise LayeralignError(f"judge {name!r}: is unknown; expected one of {', '.join(KINDS)}")
        if ":" in name and kind in (*RULES, PERSPECTIVE):
            raise LayeralignError(f"judge {name!r}: {kind} takes no model; expected {kind}")
        if names.count(name) > 1:
            raise LayeralignError(f"judge {name!r}: is named twice; expected each judge once")


def check_panel(names: Sequence[str]) -> None:
    """Refuse a panel that is none: fewer than two judges, or judges without verdicts.

    Raises:
        LayeralignError: see above; the message says which.
    """
    for name in names:
        if scores_only(name):
            raise LayeralignError(
                f"panel: {name!r} gives numbers and no verdicts; expected judges with verdicts"
            )
    if len(names) < 2:
        raise LayeralignError("panel: expected two or more judges, joined by commas")


def trusted(names: Iterable[str]) -> list[str]:
    """Sort names of judges by trust: human labels, then `KINDS` in order, then unknown kinds."""
    known = {kind: at for at, kind in enumerate((HUMAN, *KINDS))}
    return sorted(names, key=lambda name: (known.get(kind_of(name), len(known)), name))


def scores_only(name: str) -> bool:
    """Whether the judge of this name is a scorer."""
    return kind_of(name) in SCORERS


def words(name: str) -> dict[str, str]:
    """What the judge of this name says of an answer, by its verdict."""
    unsafe, safe = VERDICT_WORDS.get(kind_of(name), ("unsafe", "safe"))
    return {"unsafe": unsafe, "safe": safe, "invalid": "could not be judged"}


def meaning(name: str) -> str:
    """Meaning of an `unsafe` verdict of the judge of this name, in a few words."""
    kind, _, model = name.partition(":")
    if kind == HUMAN:
        return "unsafe, by people"
    return ASR_MEANS.get(kind, f"unsafe, by {model or name}")
