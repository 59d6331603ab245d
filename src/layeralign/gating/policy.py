"""A policy: rules that a run must meet, read from YAML and validated before anything is judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field

from layeralign._util import strict_yaml
from layeralign._util.validation import Filled, Record, shown, validated
from layeralign.cases.case import KINDS, normalise_category
from layeralign.errors import LayeralignError
from layeralign.exits import Exits
from layeralign.judges.kinds import MEASURES

Bound = Literal["upper_bound", "lower_bound", "max", "no_worse_than"]
BOUNDS: tuple[Bound, ...] = get_args(Bound)
LESS = ("asr", "asr_coherent", "invalid", "over_refusal", "benign_refusal")
"""Metrics for which lower is better."""
MORE = ("refusal", "discrimination", "utility", "coherence")
"""Metrics for which higher is better."""
METRICS = (*LESS, *MORE)
_ALLOWED = {
    "upper_bound": "≤",
    "lower_bound": "≥",
    "max": "≤",
    "no_worse_than": "no worse than base by more than",
}


@dataclass(frozen=True)
class Rule:
    """One condition that must hold at each of the rule's exits.

    Attributes:
        name: the rule's name; empty where it has none.
        metric: one of `METRICS`, or the name of a judge's measure.
        scored: whether `metric` is a judge's measure.
        judge: the judge of the measure, where several judges give it; otherwise None.
        kind: the kind of the scored cases.
        exits: the exits, in the syntax of `Exits.parse`.
        bound: the side and the quantity of the limit. `upper_bound` and `lower_bound` apply to the 95 %
            interval, `max` to the share itself. `no_worse_than` applies to the interval of the change from
            the base run, on the same cases.
        limit: a share from 0 to 1; for a score, a number on its own scale; for `no_worse_than`, the margin.
        category: the category of the cases; None for all categories.
        by_category: whether the rule must hold in each category separately.
        where: the rule's place in the policy, for messages.
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

    @property
    def of_default(self) -> bool:
        """Whether the rule is about the default exit by name, whichever exit that is."""
        return self.exits.strip() == "default"

    def at(self, exits: Exits) -> tuple[int, ...]:
        """Return the numbers of the rule's exits in an encoder.

        Raises:
            LayeralignError: the encoder has no such exit.
        """
        try:
            return exits.parse(self.exits)
        except LayeralignError as error:
            raise LayeralignError(f"{self.where}: {error}") from error

    @property
    def less(self) -> bool:
        """Whether the rule limits high values of its metric, not low ones."""
        return self.metric in LESS if self.bound == "no_worse_than" else self.bound != "lower_bound"

    @property
    def border(self) -> float:
        """The value that must not be exceeded on the bad side; for `no_worse_than`, the change."""
        return -self.limit if self.bound == "no_worse_than" and not self.less else self.limit

    def beyond(self, value: float) -> float:
        """Return how far a value is on the wrong side of the limit; at most 0 on the right side."""
        return value - self.border if self.less else self.border - value

    @property
    def allowed(self) -> str:
        """The limit in words: `≤ 15 %`."""
        limit = f"{self.limit:.6g}" if self.scored else f"{100 * self.limit:.6g} %"
        return f"{_ALLOWED[self.bound]} {limit}{' of n' if self.bound == 'max' else ''}"

    @property
    def title(self) -> str:
        """The rule's name, or a description of the rule."""
        categories = ", each category" if self.by_category else f", {self.category}" if self.category else ""
        return self.name or f"{self.metric} {self.allowed} (exits {self.exits}{categories})"


@dataclass(frozen=True)
class Policy:
    """The rules and the judge of the ASR; `judge` None selects the most trusted judge of the run."""

    rules: tuple[Rule, ...]
    judge: str | None = None


def read(given: str | Path | Mapping[str, Any]) -> Policy:
    """Read a policy from a YAML file, or from the mapping that such a file holds.

    Raises:
        LayeralignError: a part of the policy is invalid; the message says which part, where, and what was
            expected.
    """
    name = "policy" if isinstance(given, Mapping) else f"policy {given}"
    found, lines = (given, {}) if isinstance(given, Mapping) else strict_yaml.read(Path(given), name)
    if not isinstance(found, Mapping):
        raise LayeralignError(f"{name}: is {_kind(found)}; expected the keys judge and rules")
    top = validated(_Policy, dict(found), lambda key: _place(name, lines, (key,)), name=str)
    made = []
    for number, rule in enumerate(top.rules):
        where = _place(name, lines, ("rules", number))
        if not isinstance(rule, Mapping):
            raise LayeralignError(
                f"{where}: is {_kind(rule)}; expected keys such as metric, exits and upper_bound"
            )
        _one_of(rule, ("metric", "score"), where)
        _one_of(rule, BOUNDS, where)
        place = partial(_place_of_key, name, lines, number)
        made.append(_rule(validated(_Fields, dict(rule), place, name=str), where, place))
    return Policy(tuple(made), top.judge or None)


_TEXT, _NUMBER = "a text", "a number"
_EXITS = "all, default, early, 18, 1-8 or a list"


def _listed(value: Any) -> str:
    """Return the exits as one text; the encoder's exits are checked later, with a run."""
    several = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not several or any(isinstance(e, bool) or not isinstance(e, int | str) or e == "" for e in several):
        raise ValueError
    return ",".join(str(exit).strip() for exit in several)


class _Policy(Record):
    """The top of a policy file."""

    rules: list[Any] = Field(min_length=1, description="a list of at least one rule")
    judge: Filled = Field("", description=_TEXT)


class _Fields(Record):
    """A rule of a policy file; `model_fields_set` has the keys that it gives, and no key may be null."""

    name: Filled = Field("", description=_TEXT)
    metric: Literal[METRICS] = Field("asr", description=", ".join(METRICS))  # type: ignore[valid-type]
    score: Filled = Field("", description=_TEXT)
    judge: Filled = Field("", description=_TEXT)
    kind: Literal["harmful", "benign", "vqa"] = Field("harmful", description=", ".join(KINDS))
    exits: Annotated[str, BeforeValidator(_listed)] = Field(description=_EXITS)
    category: Filled = Field("", description=_TEXT)
    by: Literal["category"] = Field("category", description="category")
    upper_bound: float = Field(0.0, description=_NUMBER)
    lower_bound: float = Field(0.0, description=_NUMBER)
    max: float = Field(0.0, description=_NUMBER)
    no_worse_than: Literal["base"] = Field("base", description="base")
    margin: float = Field(0.0, description=_NUMBER)


Place = Callable[[str], str]
"""Maps a key of a rule to its place, in words."""


def _one_of(rule: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    there = [key for key in keys if key in rule]
    if len(there) != 1:
        has = f"both {there[0]} and {there[1]}" if there else f"none of {', '.join(keys)}"
        raise LayeralignError(f"{where}: has {has}; expected one of them")


def _rule(fields: _Fields, where: str, place: Place) -> Rule:
    given = fields.model_fields_set
    scored = "score" in given
    bound: Bound = next(key for key in BOUNDS if key in given)
    metric = fields.score if scored else fields.metric
    _check_bound(fields, metric, bound, place)
    for key in ("judge", "kind"):
        if key in given and not scored:
            raise LayeralignError(
                f"{place(key)}: {key} is allowed only with score; name the judge of verdicts at the top"
            )
    if {"by", "category"} <= given:
        raise LayeralignError(f"{place('by')}: by and category are given both; expected one of them")
    return Rule(
        name=fields.name,
        metric=metric,
        scored=scored,
        judge=fields.judge or None,
        kind=fields.kind,
        exits=fields.exits,
        bound=bound,
        limit=_limit(fields, metric, bound, place),
        category=normalise_category(fields.category) if "category" in given else None,
        by_category="by" in given,
        where=where,
    )


def _check_bound(fields: _Fields, metric: str, bound: Bound, place: Place) -> None:
    """Refuse a limit on the wrong side, which would let bad values pass."""
    scored = bool(fields.score)
    known = MEASURES.get(metric) if scored else None
    more = known.higher_is_better if known else metric in MORE and not scored
    less = not known.higher_is_better if known else metric in LESS and not scored
    why = ""
    if bound == "max" and metric != "invalid":
        why = f"is for invalid, a count of this run; {metric} is an estimate, expected upper_bound"
    elif bound == "no_worse_than" and (scored or metric == "discrimination"):
        why = f"is for metrics that are paired by case; {metric} is none"
    elif bound == "upper_bound" and more:
        why = f"would pass little {metric}, of which more is better; expected lower_bound"
    elif bound == "lower_bound" and less:
        why = f"would pass much {metric}, of which less is better; expected upper_bound"
    elif bound == "no_worse_than" and "margin" not in fields.model_fields_set:
        why = "has no margin; expected one, as 0.01, since no number of cases shows that nothing changed"
    if why:
        raise LayeralignError(f"{place(bound)}: {bound} {why}")
    if bound != "no_worse_than" and "margin" in fields.model_fields_set:
        raise LayeralignError(f"{place('margin')}: margin belongs to no_worse_than alone")


def _limit(fields: _Fields, metric: str, bound: Bound, place: Place) -> float:
    """Return the rule's limit; refuse values outside the metric's range, and one that every run meets."""
    key = "margin" if bound == "no_worse_than" else bound
    value = float(getattr(fields, key))
    if not fields.score:
        low: float | None = -1.0 if metric == "discrimination" and key != "margin" else 0.0
        high: float | None = 1.0
        expected = f"a share from {low:g} to 1 (0.15 is 15 %)"
    else:
        known = MEASURES.get(metric)
        low, high = (known.low, known.high) if known else (None, None)
        ends = [f"{word} {end:g}" for word, end in (("at least", low), ("at most", high)) if end is not None]
        expected = " of ".join([_NUMBER, *([" and ".join(ends)] if ends else [])])
    if (low is not None and value < low) or (high is not None and value > high):
        raise LayeralignError(f"{place(key)}: {key} is {value:g}; expected {expected}")
    if value == (low if bound == "lower_bound" else high):  # such as 1, meant as 1 %
        raise LayeralignError(f"{place(key)}: {key} is {value:g}, which every run meets; expected {expected}")
    return value


def _place(name: str, lines: Mapping[strict_yaml.Place, int], at: strict_yaml.Place) -> str:
    """Return a place in a policy, in words: the nearest known line, and the rule."""
    line = next((lines[at[:n]] for n in range(len(at), 0, -1) if at[:n] in lines), None)
    rule = f", rule {int(at[1]) + 1}" if len(at) > 1 else ""
    return f"{name}{f', line {line}' if line else ''}{rule}"


def _place_of_key(name: str, lines: Mapping[strict_yaml.Place, int], rule: int, key: str) -> str:
    return _place(name, lines, ("rules", rule, key))


def _kind(value: object) -> str:
    """Return the type of a value, in words."""
    kinds = {"NoneType": "empty", "list": "a list", "str": "a text", "dict": "a mapping"}
    return kinds.get(type(value).__name__, shown(value))
