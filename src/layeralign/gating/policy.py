"""What a run must be like to pass: a policy's rules, read from YAML and checked before anything is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from layeralign._util import strict_yaml
from layeralign.cases.case import KINDS, normalise_category
from layeralign.errors import LayeralignError
from layeralign.exits import Exits
from layeralign.gating.fields import Fields, kind_of, place_of, shown
from layeralign.judges.kinds import MEASURES

Bound = Literal["upper_bound", "lower_bound", "max", "no_worse_than"]
BOUNDS: tuple[Bound, ...] = get_args(Bound)
LESS = ("asr", "asr_coherent", "invalid", "over_refusal", "benign_refusal")
"""Metrics of which less is better."""
MORE = ("refusal", "discrimination", "utility", "coherence")
"""Metrics of which more is better."""
METRICS = (*LESS, *MORE)
_KEYS = ("name", "metric", "score", "judge", "kind", "exits", "category", "by", *BOUNDS, "margin")
_ALLOWED = {
    "upper_bound": "≤",
    "lower_bound": "≥",
    "max": "≤",
    "no_worse_than": "no worse than base by more than",
}


@dataclass(frozen=True)
class Rule:
    """One thing that must hold at every one of its exits.

    Attributes:
        name: what it is called; empty where it has no name.
        metric: one of `METRICS`, or what a judge scored.
        scored: whether it is the latter.
        judge: whose score, where several measured the same; None else.
        kind: of the cases that are scored.
        exits: which, as `Exits.parse` takes them.
        bound: `upper_bound` and `lower_bound` are of the 95 % interval, `max` of the share itself,
            `no_worse_than` of the interval of the change from the base run, on the same cases.
        limit: a share from 0 to 1, of a score a number of its own scale; the margin of `no_worse_than`.
        category: of the cases; None for all.
        by_category: whether the rule must hold in each category by itself.
        where: its place in the policy, for messages.
    """

    name: str
    metric: str
    scored: bool
    judge: str | None
    kind: str
    exits: str
    bound: Bound
    limit: float
    category: str | None
    by_category: bool
    where: str

    def at(self, exits: Exits) -> tuple[int, ...]:
        """The exits that it is about, of an encoder's.

        Raises:
            LayeralignError: the encoder has no such exit.
        """
        try:
            return exits.parse(self.exits)
        except LayeralignError as error:
            raise LayeralignError(f"{self.where}: {error}") from error

    @property
    def less(self) -> bool:
        """Whether it keeps its metric from being high, not from being low."""
        return self.metric in LESS if self.bound == "no_worse_than" else self.bound != "lower_bound"

    @property
    def border(self) -> float:
        """The value that it must not be beyond; of `no_worse_than` the change's."""
        return -self.limit if self.bound == "no_worse_than" and not self.less else self.limit

    def beyond(self, value: float) -> float:
        """How far a value is on the wrong side of the limit; at most 0 on the right one."""
        return value - self.border if self.less else self.border - value

    @property
    def allowed(self) -> str:
        """Its limit in words: `≤ 15 %`."""
        limit = f"{self.limit:.6g}" if self.scored else f"{100 * self.limit:.6g} %"
        return f"{_ALLOWED[self.bound]} {limit}{' of n' if self.bound == 'max' else ''}"

    @property
    def title(self) -> str:
        """Its name, or what it says."""
        categories = ", each category" if self.by_category else f", {self.category}" if self.category else ""
        return self.name or f"{self.metric} {self.allowed} (exits {self.exits}{categories})"


@dataclass(frozen=True)
class Policy:
    """Rules, and whose verdicts make the ASR: None for the most trusted judge that has judged."""

    rules: tuple[Rule, ...]
    judge: str | None = None


def read(given: str | Path | Mapping[str, Any]) -> Policy:
    """A policy from a YAML file, or from what such a file would hold.

    Raises:
        LayeralignError: something in it is not as it should be; says what, where, and what was expected.
    """
    name = "policy" if isinstance(given, Mapping) else f"policy {given}"
    found, lines = (given, {}) if isinstance(given, Mapping) else strict_yaml.read(Path(given), name)
    if not isinstance(found, Mapping):
        raise LayeralignError(f"{name}: is {kind_of(found)}; expected the keys judge and rules")
    top = Fields(found, ("judge", "rules"), name, lines, ())
    rules = found.get("rules")
    if not isinstance(rules, list) or not rules:
        what = f"rules is {kind_of(rules)}" if "rules" in found else "has no rules"
        raise LayeralignError(f"{top.place('rules')}: {what}; expected a list of at least one rule")
    made = []
    for number, rule in enumerate(rules):
        at = ("rules", number)
        if not isinstance(rule, Mapping):
            where = place_of(name, lines, at)
            raise LayeralignError(
                f"{where}: is {kind_of(rule)}; expected keys as metric, exits and upper_bound"
            )
        made.append(_rule(Fields(rule, _KEYS, name, lines, at)))
    return Policy(tuple(made), top.text("judge"))


def _rule(part: Fields) -> Rule:
    scored = part.one_of(("metric", "score")) == "score"
    bound: Bound = part.one_of(BOUNDS)  # type: ignore[assignment]
    metric = (part.text("score") or "") if scored else part.choice("metric", METRICS)
    _check_bound(part, metric, bound, scored=scored)
    for key in ("judge", "kind"):
        if key in part.found and not scored:
            part.refuse(
                key, "is allowed only with score; name the judge of verdicts at the top of the policy"
            )
    if "by" in part.found and "category" in part.found:
        part.refuse("by", "and category are given both; expected one of them")
    category = part.text("category")
    return Rule(
        name=part.text("name") or "",
        metric=metric,
        scored=scored,
        judge=part.text("judge"),
        kind=part.choice("kind", KINDS) if "kind" in part.found else "harmful",
        exits=_exits(part),
        bound=bound,
        limit=_limit(part, metric, bound, scored=scored),
        category=None if category is None else normalise_category(category),
        by_category="by" in part.found and part.choice("by", ("category",)) == "category",
        where=part.where,
    )


def _check_bound(part: Fields, metric: str, bound: Bound, *, scored: bool) -> None:
    """A limit on the wrong side would pass what is bad."""
    if bound == "max" and metric != "invalid":
        part.refuse(
            "max", f"is for invalid, a count of this run; {metric} is an estimate, expected upper_bound"
        )
    if bound == "no_worse_than" and (scored or metric == "discrimination"):
        part.refuse("no_worse_than", f"is for metrics that are paired by case; {metric} is none")
    known = MEASURES.get(metric) if scored else None
    more = known.higher_is_better if known else metric in MORE and not scored
    less = not known.higher_is_better if known else metric in LESS and not scored
    if bound == "upper_bound" and more:
        part.refuse(bound, f"would pass little {metric}, of which more is better; expected lower_bound")
    if bound == "lower_bound" and less:
        part.refuse(bound, f"would pass much {metric}, of which less is better; expected upper_bound")
    if bound != "no_worse_than" and "margin" in part.found:
        part.refuse("margin", "is of no_worse_than alone")


def _limit(part: Fields, metric: str, bound: Bound, *, scored: bool) -> float:
    if scored:
        known = MEASURES.get(metric)
        return part.number(bound, known.low if known else None, known.high if known else None)
    if bound != "no_worse_than":
        return part.share(bound, -1.0 if metric == "discrimination" else 0.0)
    part.choice("no_worse_than", ("base",))
    if "margin" not in part.found:
        part.refuse(
            "no_worse_than",
            "has no margin; expected one, as 0.01, since no number of cases shows that nothing changed",
        )
    return part.share("margin", 0.0)


def _exits(part: Fields) -> str:
    """As one text; whether an encoder has them is seen when one is at hand."""
    if "exits" not in part.found:
        raise LayeralignError(f"{part.where}: has no exits; expected all, default, early, 18, 1-8 or a list")
    found = part.found["exits"]
    several = list(found) if isinstance(found, Sequence) and not isinstance(found, str) else [found]
    if not several or any(isinstance(e, bool) or not isinstance(e, int | str) or e == "" for e in several):
        part.refuse("exits", f"is {shown(found)}; expected all, default, early, 18, 1-8 or a list")
    return ",".join(str(exit).strip() for exit in several)
