"""Whether a run keeps a policy: every rule at every one of its exits, and what would settle what is open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

from layeralign.analysis.alike import alike
from layeralign.analysis.answered import Answered, answered
from layeralign.analysis.figures import NOTHING, Estimate
from layeralign.analysis.needed import MOST_CASES, mean_needs, share_needs
from layeralign.analysis.policy import Policy, Rule
from layeralign.analysis.strict import about, cases_of, measure, scored, worsened
from layeralign.analysis.summary import ALPHA
from layeralign.errors import LayeralignError
from layeralign.runs.store import Run
from layeralign.vlm.exits import Exits

Result = Literal["fail", "inconclusive", "pass"]
EXIT_CODES: dict[Result, int] = {"pass": 0, "fail": 2, "inconclusive": 3}
_WORST_FIRST: tuple[Result, ...] = ("fail", "inconclusive", "pass")

Rows = Sequence[Answered]


@dataclass(frozen=True)
class Check:
    """A rule at one exit.

    Attributes:
        exit: its number.
        name: what it is called.
        category: of the cases; None for all.
        result: see `Gate`.
        estimate: what was measured; of `no_worse_than` the change.
        why: what keeps it from passing, in a sentence; empty where it passes.
        more: how many more cases would let it pass, if the value stays; None where no number does.
    """

    exit: int
    name: str
    category: str | None
    result: Result
    estimate: Estimate
    why: str = ""
    more: int | None = None


@dataclass(frozen=True)
class Outcome:
    """A rule and its checks, the worst first."""

    rule: Rule
    checks: tuple[Check, ...]

    @property
    def worst(self) -> Check:
        """The check that decides."""
        return self.checks[0]

    @property
    def result(self) -> Result:
        """The worst check's."""
        return self.worst.result

    @property
    def more(self) -> int | None:
        """How many more cases would let every check pass that they can let pass; None where there is none."""
        return max((check.more for check in self.checks if check.more), default=None)


@dataclass(frozen=True)
class Gate:
    """What came of a policy, the worst outcome first.

    A check fails where all of its interval is beyond the limit, passes where none of it is, and is else
    inconclusive, as is what was not measured. A rule has the result of its worst check, a gate that of its
    worst rule. No correction over exits: a rule passes only if every exit does, so that one bad exit among
    many gets by no more often than alone (intersection-union: Berger 1982, Technometrics 24, 295-300).
    An exit just at the limit passes with 3.1 % at most (20 to 1,000 independent cases, limits of 1 to 50 %).
    It fails by chance more often, the more exits there are, which is the safe side. In a sequential run,
    whose answers decide how many cases an exit has, intervals are the always valid ones.
    """

    run: str
    model: str
    judge: str
    base: str | None
    outcomes: tuple[Outcome, ...]

    @property
    def result(self) -> Result:
        """Whether the policy is kept."""
        return self.outcomes[0].result

    @property
    def exit_code(self) -> int:
        """Of the process: 0, 2 where a rule failed, 3 where nothing failed and something is inconclusive."""
        return EXIT_CODES[self.result]


def gate(run: Run, policy: Policy, base: Run | None = None) -> Gate:
    """Hold a run against a policy.

    Args:
        run: an open run.
        policy: its rules.
        base: an open run of the same cases, that `no_worse_than: base` means.

    Raises:
        LayeralignError: the policy names an exit or a judge that the run has not, or lacks its base; or
            the two runs cannot be compared.
    """
    compared = [rule for rule in policy.rules if rule.bound == "no_worse_than"]
    if compared and base is None:
        raise LayeralignError(f"{compared[0].where}: no_worse_than needs --base, a run to compare with")
    if base is not None and not compared:
        raise LayeralignError(f"base {base.path}: no rule of the policy has no_worse_than: base")
    judge, rows = answered(run, policy.judge)
    before: Mapping[int, Rows] = {}
    if base is not None:
        alike(base, run, (judge, judge))
        before = answered(base, judge)[1]
    scene = _Scene(run, rows, before)
    outcomes = [Outcome(rule, scene.checks(rule)) for rule in policy.rules]
    return Gate(
        run=str(run.path),
        model=run.model,
        judge=judge,
        base=None if base is None else str(base.path),
        outcomes=tuple(sorted(outcomes, key=lambda outcome: _WORST_FIRST.index(outcome.result))),
    )


class _Scene:
    """What the rules of one policy look at."""

    def __init__(self, run: Run, rows: Mapping[int, Rows], base: Mapping[int, Rows]) -> None:
        self.rows, self.base = rows, base
        self.exits = Exits.from_json(run.encoder)
        self.cases = [case for case in run.cases() if not case.control]
        self.alpha = ALPHA if run.sequential else None

    def checks(self, rule: Rule) -> tuple[Check, ...]:
        """Every check of a rule, the worst first."""
        cases = [case for case in self.cases if about(rule, case)]
        categories: list[str | None] = [rule.category]
        if rule.by_category:
            categories = [*sorted({case.category for case in cases})] or [None]
        made = [self._check(rule, exit, category) for exit in rule.at(self.exits) for category in categories]
        return tuple(
            sorted(made, key=lambda check: (_WORST_FIRST.index(check.result), -_badness(rule, check)))
        )

    def _check(self, rule: Rule, exit: int, category: str | None) -> Check:
        name = self.exits.name(exit)
        open_ = Check(exit, name, category, "inconclusive", NOTHING)
        asked = {case.id for case in self.cases if about(rule, case) and category in (None, case.category)}
        what = cases_of(rule, category)
        if not asked:
            return replace(open_, why=f"the run has no {what}")
        rows, base = ([row for row in by.get(exit, ()) if row.case in asked] for by in (self.rows, self.base))
        if not rows:
            return replace(open_, why=f"exit {name} was not scanned")
        if rule.bound == "no_worse_than" and not base:
            return replace(open_, why=f"exit {name} was not scanned in the base run")
        estimate = _estimate(rule, rows, base, self.alpha)
        made = decide(rule, replace(open_, estimate=estimate), what)
        missing = len(asked) - len({row.case for row in rows})
        if made.result == "pass" and missing and self.alpha is None:
            why = f"{missing} of {len(asked)} {what} are not answered there; the scan's command goes on"
            return replace(made, result="inconclusive", why=why, more=missing)
        unscored = len(rows) - estimate.n
        if made.result == "pass" and rule.scored and unscored:
            return replace(made, result="inconclusive", why=f"{unscored} of {len(rows)} {what} have no score")
        return made


def _estimate(rule: Rule, rows: Rows, base: Rows, alpha: float | None) -> Estimate:
    if rule.bound == "no_worse_than":
        return worsened(base, rows, rule.metric)
    if not rule.scored:
        return measure(rows, rule.metric, alpha)
    found_scores = scored(rows, rule.metric, rule.judge, alpha)
    if len(found_scores) > 1:
        judges = ", ".join(score.judge for score in found_scores)
        raise LayeralignError(
            f"{rule.where}: {rule.metric} was measured by {judges}; name one as the rule's judge"
        )
    return next((Estimate(s.mean, s.n, s.low, s.high, s.method) for s in found_scores), NOTHING)


def decide(rule: Rule, check: Check, what: str) -> Check:
    """A check with its result, from its estimate.

    Args:
        rule: which.
        check: with the estimate.
        what: the cases that it is about, in words.
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
    more = _needs(rule, found, better if over > 0 else worse)
    return replace(check, result="inconclusive", why=_open(over, more, what), more=None if over > 0 else more)


def _needs(rule: Rule, found: Estimate, reach: float) -> int | None:
    """How many more cases would bring an end of the interval to the limit."""
    assert found.value is not None  # noqa: S101 - decide saw to it
    difference = rule.scored or rule.bound == "no_worse_than" or rule.metric == "separation"
    return (mean_needs if difference else share_needs)(found.value, found.n, reach, rule.border)


def _open(over: float, more: int | None, what: str) -> str:
    """Why a check is inconclusive, and what would settle it."""
    if more is None:
        return "the value is at the limit: no number of cases settles it, only another value"
    many = f"more than {MOST_CASES}" if more >= MOST_CASES else f"about {more}"
    if over > 0:
        return f"the value is beyond the limit: it takes another value to pass, {many} more {what} to fail"
    return f"{many} more {what} would settle it, if the value stays"


def _badness(rule: Rule, check: Check) -> float:
    """How far beyond the limit a check is; what is unknown comes first."""
    return inf if check.estimate.value is None else rule.beyond(check.estimate.value)
