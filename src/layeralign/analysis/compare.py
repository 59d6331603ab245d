"""Comparison of two runs of the same cases, before and after a change of the model, exit by exit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from layeralign.analysis.comparability import Difference, alike, same_cases
from layeralign.analysis.metrics import measured
from layeralign.analysis.results import Results, common_judge
from layeralign.analysis.rows import Matched, Rows, joined, match, observed
from layeralign.analysis.summary import ALPHA, Summary, summarise
from layeralign.cases.case import KINDS
from layeralign.errors import LayeralignError
from layeralign.exits import Exits
from layeralign.runs.columns import HARMFUL, distinct
from layeralign.stats.intervals import mean_within
from layeralign.stats.paired import Change, Pairs, change, p_value

_WHAT = ("asr", "invalid", "refusal", "over_refusal", "benign_refusal", "utility", "coherence")
WORSE = {
    "asr": 1, "invalid": 1, "over_refusal": 1, "benign_refusal": 1, "utility": -1, "coherence": -1,
}  # fmt: skip
"""Metrics that can regress, with the sign of a regression; refusal of harmful requests mirrors the ASR."""
ALL = "all"
"""The group of the main track's exits 1 to L, as in the paper."""


_Name = TypeVar("_Name")


@dataclass(frozen=True)
class ScoreChange:
    """Change of the mean of one judge's measure, over the rows of one kind that both runs scored.

    Attributes:
        judge: the judge's full name.
        measure: the measure's name.
        kind: the kind of case.
        n: the number of cases; in a group of exits each case counts once per exit.
        before, after: the means.
        difference: `after` - `before`.
        low, high: ends of the 95 % interval of `difference`; None where only one case was scored.
        method: how the interval was computed, in words.
    """

    judge: str
    measure: str
    kind: str
    n: int
    before: float
    after: float
    difference: float
    low: float | None
    high: float | None
    method: str


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Changes of all metrics, paired by case; None where a metric was not measured in both runs.

    Attributes:
        asr: share of harmful cases judged unsafe, over those that were judged safe or unsafe in both runs.
        invalid: share of harmful cases with an invalid verdict.
        refusal: share of harmful cases that were refused.
        over_refusal: share of borderline benign cases that were refused.
        benign_refusal: share of plainly benign cases that were refused.
        utility: share of picture questions answered correctly.
        coherence: share of all cases with a coherent answer.
        asr_lowest: change of the ASR over all harmful cases, with invalid answers counted as unsafe before
            and safe after. It is the largest fall compatible with the data.
        asr_highest: the opposite reading of invalid answers, which gives the largest rise.
        p: metric -> two-sided p-value of the change. It is Bonferroni-corrected over the exits that both
            runs have, or over the groups, separately for each metric.
        scores: changes of the judges' mean scores.
    """

    asr: Change | None
    invalid: Change | None
    refusal: Change | None
    over_refusal: Change | None
    benign_refusal: Change | None
    utility: Change | None
    coherence: Change | None
    asr_lowest: Change | None
    asr_highest: Change | None
    p: Mapping[str, float]
    scores: tuple[ScoreChange, ...]

    def regressions(self) -> tuple[str, ...]:
        """Return the metrics that became worse with a corrected p-value below 0.05."""
        found = {name: getattr(self, name) for name in WORSE}
        return tuple(
            name
            for name, one in found.items()
            if one is not None and one.difference * WORSE[name] > 0 and self.p[name] < ALPHA
        )


@dataclass(frozen=True, kw_only=True)
class ExitChange(Changes):
    """Changes at one exit.

    Attributes:
        exit: the exit's number.
        name: the exit's name.
        default: whether it is the default exit.
        group: the exit's group.
        p_changed: the value of `p` for the ASR.
        test: the test behind `p_changed`; see `layeralign.stats.paired.p_value`.
    """

    exit: int
    name: str
    default: bool
    group: str
    p_changed: float | None
    test: str


@dataclass(frozen=True, kw_only=True)
class GroupChange(Changes):
    """Changes over a group of exits, paired by case and exit.

    Attributes:
        group: the group's name; `all` is the main track's exits 1 to L.
        exits: the group's exits that both runs have.
    """

    group: str
    exits: tuple[int, ...]


@dataclass(frozen=True)
class Comparison:
    """Summaries of two runs, and the paired changes at every exit that both runs have.

    Attributes:
        before, after: the summary of each run.
        exits: changes at the exits that both runs have.
        groups: changes over the groups of these exits, and over `all`.
        differs: allowed differences between the runs besides the weights.
        family: the model's family; see docs/families.md.
        benchmarks: ids of the public benchmarks of the harmful cases; an empty string stands for other cases.
    """

    before: Summary
    after: Summary
    exits: tuple[ExitChange, ...]
    groups: tuple[GroupChange, ...]
    differs: tuple[Difference, ...]
    family: str
    benchmarks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object; its keys are never renamed, only added."""
        return asdict(self)


def compare(
    before: Results, after: Results, allow: Collection[str] = (), judge: str | None = None
) -> Comparison:
    """Compare two runs.

    Args:
        before: the run before the change.
        after: the run after the change.
        allow: differences besides the weights that are allowed: `cases` (only cases with the same content in
            both runs are compared), `judges`, `encoder`, or a key of the identity, such as `decoding`.
        judge: the judge whose verdicts make the ASR of both runs. By default it is the most trusted judge,
            people excepted, that has judged every harmful answer of both runs. Without such a judge, each run
            uses its own most trusted judge.

    Raises:
        LayeralignError: the runs differ in something else, share no judged row, or one run is sequential.
    """
    asked = judge or common_judge((before, after))
    judges = before.asr_judge(asked), after.asr_judge(asked)
    differs = alike(before, after, judges, allow)
    summaries = [summarise(run, judge) for run, judge in zip((before, after), judges, strict=True)]
    matched, harmful = _matched_exits(before, after, judges)
    if not any(found.shares for found in matched.values()):
        raise LayeralignError(f"runs {before.path} and {after.path}: have no judged case in common")
    from layeralign.cases.readers.reader import benchmarks_of  # a page about one run does without

    return Comparison(
        before=summaries[0],
        after=summaries[1],
        exits=tuple(_exit_change(before.exits, at, found, len(matched)) for at, found in matched.items()),
        groups=_group_changes(before.exits, matched),
        differs=differs,
        family=str(before.identity.get("family", "")),
        benchmarks=benchmarks_of(harmful),
    )


_SIDES = {name: (name, name) for name in _WHAT} | {
    "asr_lowest": ("asr_worst_case", "asr_best_case"),
    "asr_highest": ("asr_best_case", "asr_worst_case"),
}
"""Change -> the metric of each side."""


@dataclass(frozen=True, eq=False)
class _Matched:
    """What was matched: the shares by change, the mean scores by judge, measure and kind of case."""

    shares: dict[str, Matched]
    scores: dict[tuple[str, str, str], Matched]


def _matched_exits(
    before: Results, after: Results, judges: tuple[str, str]
) -> tuple[dict[int, _Matched], set[str]]:
    """Match every exit that both runs have; return also the ids of the common harmful cases.

    Where another encoder is allowed, one number may be exits of two tracks, which are not matched.
    """
    common = same_cases(before, after)
    was, now = (run.rows(judge) for run, judge in zip((before, after), judges, strict=True))
    found, harmful, known = {}, set[int](), before.columns.cases.id
    both = [exit for exit in was.keys() & now.keys() if before.exits.place(exit) == after.exits.place(exit)]
    for exit in sorted(both):
        old, new = (rows.where(rows.case_in(common)) for rows in (was.pop(exit), now.pop(exit)))
        if len(old) and len(new):
            found[exit] = _matched(old, new)
        harmful.update(distinct(old.case[old.role == HARMFUL]).tolist())
    return found, {known[case] for case in harmful}


def _matched(was: Rows, now: Rows) -> _Matched:
    """Match the rows of one exit."""
    old, new = measured(was), measured(now)
    shares = {name: match(old[one], new[other]) for name, (one, other) in _SIDES.items()}
    scores, after = {}, {(judge, measure): column for judge, measure, column in now.scores()}
    for judge, measure, column in was.scores():
        if (judge, measure) not in after:
            continue
        sides = ((was, column), (now, after[judge, measure]))
        for kind in sorted(KINDS):
            one, other = (observed(rows.where(m := rows.kind_is(kind)), given[m]) for rows, given in sides)
            scores[judge, measure, kind] = match(one, other)
    return _Matched(
        {name: found for name, found in shares.items() if found},
        {name: found for name, found in scores.items() if found},
    )


def _exit_change(encoder: Exits, exit: int, found: _Matched, tested: int) -> ExitChange:
    changes, tests = _changes([found], tested)
    return ExitChange(
        **changes,
        exit=exit,
        name=encoder.name(exit),
        default=exit == encoder.default,
        group=encoder.group(exit),
        p_changed=changes["p"].get("asr"),
        test=tests.get("asr", ""),
    )


def _group_changes(encoder: Exits, matched: Mapping[int, _Matched]) -> tuple[GroupChange, ...]:
    members = {group: [at for at in matched if encoder.group(at) == group] for group in encoder.groups}
    members[ALL] = [at for at in matched if 1 <= at <= encoder.layers]
    members = {group: exits for group, exits in members.items() if exits}
    made = []
    for group, exits in members.items():
        changes, _ = _changes([matched[at] for at in exits], len(members))
        made.append(GroupChange(**changes, group=group, exits=tuple(exits)))
    return tuple(made)


def _changes(parts: Sequence[_Matched], tested: int) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields of `Changes` over some exits, and the test used for each metric."""
    changes: dict[str, Any] = dict.fromkeys(_SIDES)
    p, tests = {}, {}
    for name, both in _pairs([part.shares for part in parts]):
        changes[name] = change(both)
        if name in _WHAT:
            test = p_value(both, "two-sided")
            p[name], tests[name] = min(1.0, test.p * tested), test.test
    scores = tuple(_score_change(*of, both) for of, both in _pairs([part.scores for part in parts]))
    return changes | {"p": p, "scores": scores}, tests


def _pairs(parts: Sequence[Mapping[_Name, Matched]]) -> Iterator[tuple[_Name, Pairs]]:
    """Yield each name and its pairs over the exits that have it; one at a time, since they may be large."""
    for name in dict.fromkeys(name for part in parts for name in part):
        yield name, joined([part[name] for part in parts if name in part]).pairs()


def _score_change(judge: str, measure: str, kind: str, both: Pairs) -> ScoreChange:
    before, after = float(both.before.mean()), float(both.after.mean())
    interval = mean_within(both.difference, both.clusters)
    return ScoreChange(judge, measure, kind, len(both.before), before, after, after - before, *interval)
