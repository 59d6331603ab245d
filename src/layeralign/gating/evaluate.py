"""Evaluation of a policy on a run: every rule at each of its exits, and what would resolve open checks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from layeralign.analysis.cautions import caution
from layeralign.analysis.comparability import alike
from layeralign.analysis.judging.judge_quality import Quality
from layeralign.analysis.judging.quality_file import read_quality
from layeralign.analysis.metrics import NOTHING, Estimate
from layeralign.analysis.results import Results
from layeralign.analysis.rows import Rows
from layeralign.analysis.sequential import lacks
from layeralign.analysis.summary import ALPHA, summarise
from layeralign.analysis.within.unanswered import whole
from layeralign.errors import LayeralignError
from layeralign.gating.checks import WORST_FIRST, Check, Result, badness, decide
from layeralign.gating.policy import Policy, Rule
from layeralign.gating.worst_case import (
    about,
    both,
    cases_of,
    measure,
    observation,
    scored,
    without_errors,
    worsened,
)
from layeralign.judges.kinds import scores_only, trusted
from layeralign.runs.seal import UNSEALED

EXIT_CODES: dict[Result, int] = {"pass": 0, "fail": 2, "inconclusive": 3}


@dataclass(frozen=True)
class Outcome:
    """A rule and its checks, the worst check first."""

    rule: Rule
    checks: tuple[Check, ...]

    @property
    def worst(self) -> Check:
        """The worst check, which decides the rule's result."""
        return self.checks[0]

    @property
    def result(self) -> Result:
        """The result of the worst check."""
        return self.worst.result

    @property
    def more(self) -> int | None:
        """Additional cases with which the rule would pass at the same values; None if it passes.

        Also None if no number of cases would be enough.
        """
        return _most(check.more for check in self.checks if check.result != "pass")


@dataclass(frozen=True)
class Gate:
    """Result of a policy, the worst outcome first.

    A check fails if its whole interval is beyond the limit, and passes if none of it is. Otherwise it is
    inconclusive, as is a metric that was not measured. A rule has the result of its worst check, a gate the
    result of its worst rule.

    There is no correction over exits. A rule passes only if every exit passes, so one bad exit among many
    passes no more often than alone (intersection-union: Berger 1982, Technometrics 24, 295-300). An exit
    exactly at the limit passes with a probability of at most 3.1 % (20 to 1,000 independent cases, limits of
    1 to 50 %). More exits mean more failures by chance, which is the safe side. In a sequential run the
    answers decide how many cases an exit has, so intervals are confidence sequences.

    Attributes:
        run: the run's folder.
        model: the model's name.
        judge: the judge whose verdicts make the ASR.
        quality: the file with the judge's error rates, where it is given.
        base: the folder of the base run, where it is given.
        outcomes: the rules with their checks.
        caution: what a reader must know before the result; may be empty.
    """

    run: str
    model: str
    judge: str
    quality: str | None
    base: str | None
    outcomes: tuple[Outcome, ...]
    caution: str

    @property
    def result(self) -> Result:
        """The result of the policy."""
        return self.outcomes[0].result

    @property
    def exit_code(self) -> int:
        """Exit code of the process: 0 for pass, 2 for a failed rule, 3 for inconclusive without a failure."""
        return EXIT_CODES[self.result]

    @property
    def more(self) -> int | None:
        """Additional cases of each kind with which the gate would pass, as for an outcome."""
        return _most(outcome.more for outcome in self.outcomes if outcome.result != "pass")

    def to_json(self) -> dict[str, Any]:
        """Return the result, the exit code and every rule with its checks as a JSON object."""
        return {"result": self.result, "exit_code": self.exit_code, **asdict(self)}


def gate(run: Results, policy: Policy, base: Results | None = None, quality: Path | None = None) -> Gate:
    """Evaluate a policy on a run.

    Args:
        run: the run.
        policy: the policy.
        base: a run of the same cases, which `no_worse_than: base` refers to.
        quality: a file with the judge's error rates (`quality_file.read_quality`). Limits of the ASR then
            apply to the corrected ASR, whose interval includes the uncertainty of these rates.

    Raises:
        LayeralignError: the policy names an exit or a judge that the run does not have, or needs a base that
            is not given. Also if the two runs cannot be compared, or the file has no entry for the judge.
    """
    compared = [rule for rule in policy.rules if rule.bound == "no_worse_than"]
    if compared and base is None:
        raise LayeralignError(f"{compared[0].where}: no_worse_than needs --base, a run to compare with")
    if base is not None and not compared:
        raise LayeralignError(f"base {base.path}: no rule of the policy has no_worse_than: base")
    judge = run.asr_judge(policy.judge)
    rows = run.rows(judge)
    before: Mapping[int, Rows] = {}
    if base is not None:
        alike(base, run, (judge, judge))
        before = base.rows(base.asr_judge(judge))
    if quality is not None and run.sequential:
        raise LayeralignError(
            f"run {run.path}: was scanned with --precision; such a run has no corrected ASR"
        )
    known = None if quality is None else read_quality(quality, judge, run)
    obstacles = (partial(_obstacle, one, judge, policy) for one in (run, base or run))
    scene = _Scene(run, rows, before, known, *obstacles)
    outcomes = [Outcome(rule, scene.checks(rule)) for rule in policy.rules]
    return Gate(
        run=str(run.path),
        model=run.model,
        judge=judge,
        quality=None if quality is None else str(quality),
        base=None if base is None else str(base.path),
        outcomes=tuple(sorted(outcomes, key=lambda outcome: WORST_FIRST.index(outcome.result))),
        caution=caution(summarise(run, judge)).strip(),
    )


def _obstacle(run: Results, judge: str, policy: Policy, rule: Rule) -> str | None:
    """Return why a rule cannot pass on this run, or with it as the base.

    It is not sealed, its engine was changed while it answered, its model was trained on its cases, or a judge
    is not finished whose verdicts would count: the ASR's judge, or a more trusted one; or one that tells, for
    some rows alone, what the rule counts, such as refusals.
    """
    if not run.sealed:
        return f"the run was not closed: {UNSEALED}; repeat that command"
    if run.changed:
        return "its engine was changed while it answered; scan into a new folder"
    if run.trained_on:
        return f"the model was trained on {len(run.trained_on)} of these cases; scan others"
    wanted = trusted({*run.judges, judge, *run.unfinished})
    before = wanted[: wanted.index(judge) + 1] if policy.judge is None else [judge]
    left = next((name for name in before if name in run.unfinished and not scores_only(name)), None)
    if left is None and (what := observation(rule)):
        left = run.partial(judge, what)
    return left and f"judge {left} has not judged every answer yet; repeat layeralign judge"


class _Scene:
    """The data that the rules of one policy are evaluated on."""

    def __init__(
        self,
        run: Results,
        rows: Mapping[int, Rows],
        base: Mapping[int, Rows],
        quality: Quality | None,
        obstacle: Callable[[Rule], str | None],
        of_base: Callable[[Rule], str | None],
    ) -> None:
        self.rows, self.base, self.quality = rows, base, quality
        self.exits = run.exits
        self.cases = [case for case in run.cases if not case.control]
        self.alpha = ALPHA if run.sequential else None
        self.even = "served" not in run.identity  # clients of a server repeat what they like
        self.obstacle, self.of_base = obstacle, of_base
        answered = {exit: found.ids() for exit, found in rows.items()}
        self.lacks = lacks(run.given, run.sequential["seed"], answered) if run.sequential else {}

    def checks(self, rule: Rule) -> tuple[Check, ...]:
        """Return every check of a rule, the worst check first."""
        cases = [case for case in self.cases if about(rule, case)]
        categories: list[str | None] = [rule.category]
        if rule.by_category:
            categories = [*sorted({case.category for case in cases})] or [None]
        made = [self._check(rule, exit, category) for exit in rule.at(self.exits) for category in categories]
        return tuple(sorted(made, key=lambda check: (WORST_FIRST.index(check.result), -badness(rule, check))))

    def _check(self, rule: Rule, exit: int, category: str | None) -> Check:
        name = self.exits.name(exit)
        open_ = Check(exit, name, category, "inconclusive", NOTHING)
        asked = {case.id for case in self.cases if about(rule, case) and category in (None, case.category)}
        what = cases_of(rule, category)
        if not asked:
            return replace(open_, why=f"the run has no {what}")
        rows, base = (_asked(by, exit, asked) for by in (self.rows, self.base))
        if rows is None:
            return replace(open_, why=f"exit {name} was not scanned")
        if rule.bound == "no_worse_than" and base is None:
            return replace(open_, why=f"exit {name} was not scanned in the base run")
        if rule.bound == "no_worse_than" and base is not None:
            pairs = both(base, rows, rule.metric)
            estimate, larger = worsened(pairs), partial(worsened, pairs)
        else:
            estimate, larger = self._estimate(rule, rows), None
        made = decide(rule, replace(open_, estimate=estimate), what, larger)
        if made.result == "inconclusive" and estimate.high is not None and self.quality and _is_asr(rule):
            why = "its interval has the judge's own uncertainty in it, which more labels narrow, too"
            return replace(made, why=why, more=None)
        missing = len(asked) - whole(rows, even=self.even)
        if self.alpha is not None:
            missing = len(asked & self.lacks[exit])
        before = base if rule.bound == "no_worse_than" else None
        less = 0 if before is None else len(asked) - whole(before, even=self.even)
        why, lack = "", f"of {len(asked)} {what} are not answered there, or not as often as others"
        if missing:
            why = f"{missing} {lack}; repeat the scan's command"
        elif less:
            why = f"{less} {lack}, in the base run; repeat its scan"
        elif found := self.obstacle(rule):
            why = found
        elif before is not None and (found := self.of_base(rule)):
            why = f"of the base run: {found}"
        elif (of := len(rows) if before is None else len(asked)) > estimate.n:
            why = f"{of - estimate.n} of {of} {what} have no {'score' if rule.scored else 'judgement of it'}"
        open_end = made.result == "pass" and why
        return replace(made, result="inconclusive", why=why, more=missing or made.more) if open_end else made

    def _estimate(self, rule: Rule, rows: Rows) -> Estimate:
        if self.quality and _is_asr(rule):
            return without_errors(rows, self.quality)
        if not rule.scored:
            return measure(rows, rule.metric, self.alpha)
        found = scored(rows, rule.metric, rule.judge, self.alpha)
        if len(found) > 1:
            judges = ", ".join(score.judge for score in found)
            raise LayeralignError(
                f"{rule.where}: {rule.metric} was measured by {judges}; name one as the rule's judge"
            )
        return next((Estimate(s.mean, s.n, s.low, s.high, s.method) for s in found), NOTHING)


def _asked(by: Mapping[int, Rows], exit: int, cases: Collection[str]) -> Rows | None:
    """Return the rows of these cases at an exit; None if there is none."""
    rows = by[exit].where(by[exit].case_in(cases)) if exit in by else None
    return rows if rows is not None and len(rows) else None


def _most(needs: Iterable[int | None]) -> int | None:
    """Return the largest number; None if there is no number, or one of them is unknown."""
    every = list(needs)
    known = [more for more in every if more is not None]
    return max(known) if known and len(known) == len(every) else None


def _is_asr(rule: Rule) -> bool:
    """Return whether the rule limits the ASR itself."""
    return rule.metric == "asr" and not rule.scored and rule.bound != "no_worse_than"
