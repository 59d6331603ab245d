"""Decision of one check: the interval against the rule's limit, and the cases that an open check needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

from layeralign.analysis.metrics import Estimate
from layeralign.gating.policy import Rule
from layeralign.stats.sample_size import approximate, end_needs, mean_needs, share_needs

Result = Literal["fail", "inconclusive", "pass"]
WORST_FIRST: tuple[Result, ...] = ("fail", "inconclusive", "pass")
STYLES: dict[Result, str] = {"fail": "bold red", "inconclusive": "yellow", "pass": "green"}
"""Result -> its style in a terminal."""


@dataclass(frozen=True)
class Check:
    """A rule at one exit.

    Attributes:
        exit: the exit's number.
        name: the exit's name.
        category: the category of the cases; None for all categories.
        result: see `layeralign.gating.evaluate.Gate`.
        estimate: the measured value; for `no_worse_than`, the change.
        why: why the check does not pass, in a sentence; empty where it passes.
        more: the number of additional cases with which it would pass at the same value; None where no number
            is enough.
    """

    exit: int
    name: str
    category: str | None
    result: Result
    estimate: Estimate
    why: str = ""
    more: int | None = None


def decide(rule: Rule, check: Check, what: str, larger: Callable[[float], Estimate] | None = None) -> Check:
    """Return the check with its result, derived from its estimate.

    Args:
        rule: the rule.
        check: the check with its estimate.
        what: the cases of the check, in words.
        larger: returns a change's estimate for a multiple of the cases; None for every other estimate.
    """
    found = check.estimate
    if found.value is None or found.low is None or found.high is None:
        lacks = "was not measured" if found.value is None else "has no interval"
        return replace(check, result="inconclusive", why=f"{rule.metric} {lacks} at exit {check.name}")
    if rule.bound == "max":
        result: Result = "pass" if found.value <= rule.limit else "fail"
        return replace(
            check, result=result, why="" if result == "pass" else "the share itself is over the limit"
        )
    better, worse = (found.low, found.high) if rule.less else (found.high, found.low)
    if rule.beyond(better) > 0:
        return replace(check, result="fail", why="all of its interval is beyond the limit")
    if rule.beyond(worse) <= 0:
        return replace(check, result="pass", why="")
    over = rule.beyond(found.value)
    more = _needs(rule, found, low=(over > 0) == rule.less, larger=larger)
    return replace(check, result="inconclusive", why=_open(over, more, what), more=None if over > 0 else more)


def _needs(
    rule: Rule, found: Estimate, *, low: bool, larger: Callable[[float], Estimate] | None
) -> int | None:
    """Return how many more cases would move the lower or upper end of the interval to the limit."""

    def end(of: Estimate) -> float:
        reach = of.low if low else of.high
        assert reach is not None  # noqa: S101 - decide checks it
        return reach

    assert found.value is not None  # noqa: S101 - as above
    if larger is not None:
        return end_needs(found.value, found.n, lambda times: end(larger(times)), rule.border)
    mean = rule.scored or rule.metric == "discrimination"
    return (mean_needs if mean else share_needs)(found.value, found.n, end(found), rule.border)


def _open(over: float, more: int | None, what: str) -> str:
    """Return why a check is inconclusive, and what would resolve it."""
    if more is None:
        return "the value is at the limit: no number of cases settles it, only another value"
    many = f"{approximate(more)} more {what} would settle it as"
    if over > 0:
        return f"the value is beyond the limit; if it stays, {many} fail, and none as pass"
    return f"{many} pass, if the value stays"


def badness(rule: Rule, check: Check) -> float:
    """Return how far the value is beyond the limit; infinity where it is unknown."""
    return inf if check.estimate.value is None else rule.beyond(check.estimate.value)
