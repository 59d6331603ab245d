"""Runs that differ in seed or adapter: each run is one observation; its rows are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import sqrt
from statistics import mean, stdev
from typing import Any

from layeralign.analysis.metrics import Metrics
from layeralign.analysis.results import Results, common_judge
from layeralign.analysis.summary import Summary, summarise
from layeralign.errors import LayeralignError
from layeralign.judges.kinds import HUMAN
from layeralign.runs.store import RowKey
from layeralign.stats.student import student

_MAY_DIFFER = {"seed", "adapter"}


@dataclass(frozen=True)
class Spread:
    """A metric over several runs.

    Attributes:
        values: the value of each run, in the order of the runs.
        mean: the mean of the values.
        sd: their standard deviation, with n - 1.
        low, high: 95 % interval of the mean over all such runs on these cases: Student's t with n - 1 degrees
            of freedom. None where all runs gave the same value, since that does not show how far other runs
            would differ.
    """

    values: tuple[float, ...]
    mean: float
    sd: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ScoreSpread:
    """A judge's measure on one kind of case, over several runs; see `layeralign.analysis.metrics.Score`.

    Attributes:
        judge, measure, kind: as in `Score`.
        spread: the mean score over the runs.
    """

    judge: str
    measure: str
    kind: str
    spread: Spread


@dataclass(frozen=True)
class ExitSeeds:
    """One exit, over several runs.

    Attributes:
        exit, name, default, group: the exit, as in `ExitMetrics`.
        estimates: the shares of `Metrics`, by name; None where a run did not measure one.
        scores: the measures that judges scored in every run.
    """

    exit: int
    name: str
    default: bool
    group: str
    estimates: Mapping[str, Spread | None]
    scores: tuple[ScoreSpread, ...]


@dataclass(frozen=True)
class Seeds:
    """Several runs of the same cases, exit by exit.

    Attributes:
        runs: the folder of each run.
        models: the model of each run.
        asr_judge: the judge whose verdicts make the ASR.
        asr_means: the meaning of an ASR by this judge.
        exits: the values at each exit.
        summaries: the summary of each run.
    """

    runs: tuple[str, ...]
    models: tuple[str, ...]
    asr_judge: str
    asr_means: str
    exits: tuple[ExitSeeds, ...]
    summaries: tuple[Summary, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object without the summaries; its keys are never renamed, only added."""
        made = asdict(replace(self, summaries=()))
        return {name: value for name, value in made.items() if name != "summaries"}


def across(runs: Sequence[Results], judge: str | None = None) -> Seeds:
    """Summarise two or more runs of the same cases without pooling their rows.

    Args:
        runs: runs that differ in seed or adapter, and in nothing else.
        judge: the judge whose verdicts make the ASR; by default the most trusted judge that has judged every
            harmful answer of all runs.

    Raises:
        LayeralignError: fewer than two runs were given, or they differ in cases, settings or judges, or two
            runs do not differ at all.
    """
    if len(runs) < 2:
        raise LayeralignError(f"expected two runs or more that differ in their seed, got {len(runs)}")
    asked = judge or common_judge(runs)
    summaries = [summarise(run, asked) for run in runs]
    first = runs[0]
    for at, run in enumerate(runs[1:], 1):
        _check(first, run)
        _check_judges(first, run, summaries[0], summaries[at])
        if twin := next((other for other in runs[:at] if _seeded(other) == _seeded(run)), None):
            raise LayeralignError(
                f"runs {twin.path} and {run.path}: have the same adapter and the same seed, or greedy "
                "answers, which no seed changes; expected runs that differ"
            )
    exits = zip(*(summary.exits for summary in summaries), strict=True)
    return Seeds(
        tuple(str(run.path) for run in runs),
        tuple(run.model for run in runs),
        summaries[0].asr_judge,
        summaries[0].asr_means,
        tuple(
            ExitSeeds(one[0].exit, one[0].name, one[0].default, one[0].group, _estimates(one), _scores(one))
            for one in exits
        ),
        tuple(summaries),
    )


def _check(one: Results, other: Results) -> None:
    for key in sorted((one.identity.keys() | other.identity.keys()) - _MAY_DIFFER):
        mine, theirs = one.identity.get(key), other.identity.get(key)
        if mine != theirs:
            raise LayeralignError(
                f"runs {one.path} and {other.path}: were made with another {key}: {mine!r} and {theirs!r}; "
                "only seed and adapter may differ"
            )
    mine, theirs = one.case_hashes, other.case_hashes
    for name in sorted(mine.keys() & theirs.keys()):
        if mine[name] != theirs[name]:
            raise LayeralignError(f"runs {one.path} and {other.path}: case {name!r} differs between them")
    here, there = one.answered, other.answered
    if alone := sorted(here ^ there):
        raise LayeralignError(
            f"runs {one.path} and {other.path}: {_row(alone[0])} is only in "
            f"{(one if alone[0] in here else other).path}"
        )


def _row(key: RowKey) -> str:
    case, exit, sample = key
    return f"case {case!r} at exit {exit}" + (f", sample {sample}" if sample else "")


def _check_judges(one: Results, other: Results, mine: Summary, theirs: Summary) -> None:
    if mine.asr_judge != theirs.asr_judge:
        what = f"their ASR is by {mine.asr_judge} and by {theirs.asr_judge}"
    elif differing := sorted((set(mine.judges) ^ set(theirs.judges)) - {HUMAN}):
        what = f"{differing[0]} has judged only one of them"
    elif changed := [
        name for name in mine.judges if name != HUMAN and one.judge_records[name] != other.judge_records[name]
    ]:
        what = f"{changed[0]} was a different judge (other weights, revision or endpoint)"
    else:
        return
    raise LayeralignError(f"runs {one.path} and {other.path}: {what}; let the same judges judge both")


def _seeded(run: Results) -> tuple[Any, Any]:
    """Return what can make a run's answers differ from those of another run."""
    greedy = not run.identity.get("decoding", {}).get("temperature")
    return run.identity.get("adapter"), None if greedy else run.identity.get("seed")


def _estimates(exits: Sequence[Metrics]) -> dict[str, Spread | None]:
    found: dict[str, Spread | None] = {}
    for name in exits[0].estimates:
        values = [value for one in exits if (value := one.estimates[name].value) is not None]
        least = -1 if name == "discrimination" else 0
        found[name] = spread(values, least, 1) if len(values) == len(exits) else None
    return found


def _scores(exits: Sequence[Metrics]) -> tuple[ScoreSpread, ...]:
    means = [{(s.judge, s.measure, s.kind): s.mean for s in one.scores} for one in exits]
    common = [key for key in means[0] if all(key in one for one in means)]
    return tuple(ScoreSpread(*key, spread([one[key] for one in means])) for key in common)


def spread(values: Sequence[float], least: float = float("-inf"), most: float = float("inf")) -> Spread:
    """Return mean, standard deviation and interval of two or more values between `least` and `most`."""
    middle, sd = mean(values), stdev(values)
    if sd == 0:
        return Spread(tuple(values), middle, sd, None, None)
    half = student(len(values) - 1, 0.975) * sd / sqrt(len(values))
    return Spread(tuple(values), middle, sd, max(least, middle - half), min(most, middle + half))
