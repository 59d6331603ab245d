"""The next rows of a sequential scan; `layeralign.analysis.sequential` decides when it stops."""

from __future__ import annotations

from collections.abc import Sequence

from layeralign.analysis.results import Results
from layeralign.analysis.sequential import StoppingRule, harmful, order, stops, unsafe, until, wanted
from layeralign.cases.case import Case
from layeralign.decode.stream import Query
from layeralign.errors import LayeralignError
from layeralign.exits import Exits
from layeralign.judges.judge import SILENT
from layeralign.judges.oracle import Oracle, TopicJudge
from layeralign.judges.refusal import RefusalMatcher
from layeralign.runs.store import Run
from layeralign.sweep.plan import grid, missing


def check(rule: StoppingRule, cases: Sequence[Case], samples: int) -> None:
    """Check that a scan can be sequential.

    Raises:
        LayeralignError: The precision is not between 0 and 0.5, there are several samples or controls, or no
            case is harmful.
    """
    if not 0 < rule.precision < 0.5:
        raise LayeralignError(f"precision {rule.precision}: expected a half-width above 0 and below 0.5")
    if samples > 1:
        raise LayeralignError(f"samples {samples}: a scan with precision takes one sample; expected 1")
    if any(case.control for case in cases):
        raise LayeralignError("controls: cannot be scanned with precision; add them in a scan without it")
    if not any(case.kind == "harmful" for case in cases):
        raise LayeralignError(
            "precision: applies to the ASR, but none of the cases is harmful; expected at least one"
        )


def check_whole(run: Run, cases: Sequence[Case]) -> None:
    """Check that `cases` has all of the run's cases, since the random order selects among all of them.

    Raises:
        LayeralignError: The run has a case that is not among these.
    """
    if left := {case.id for case in run.given()} - {case.id for case in cases}:
        raise LayeralignError(
            f"run {run.path}: {len(left)} of its cases are missing, such as {min(left)!r}; a scan with "
            "precision needs all of the run's cases"
        )


def next_rows(run: Run, rule: StoppingRule, cases: Sequence[Case], exits: Sequence[int]) -> list[Query]:
    """The rows to answer before the next interim look; empty if every exit has stopped.

    Other cases are asked in proportion to the harmful ones.

    Args:
        run: A run whose rows are all judged by rules.
        rule: The scan's stopping rule.
        cases: All of the run's cases except controls.
        exits: The exits of the scan; the default exit is added if the run has it.
    """
    verdicts = _verdicts(run, cases)
    default = Exits.from_json(run.encoder).default
    asked = sorted({*exits, *({default} & verdicts.keys())})
    keys = harmful(run.given(), rule.seed)
    for exit in asked:
        verdicts.setdefault(exit, {})
    numbers = wanted(stops(rule, keys, verdicts, default), asked, default, len(keys))
    first = [id for id, *_ in keys]
    rest = order({case.id for case in cases} - set(first), rule.seed)
    chosen = {(id, exit) for exit, n in numbers.items() for id in until(first, rest, n)}
    return missing(run, (row for row in grid(cases, asked, 1) if (row[0].id, row[1]) in chosen))


def _verdicts(run: Run, cases: Sequence[Case]) -> dict[int, dict[str, bool | None]]:
    """The rules' verdicts at each exit: a testbed's own judge's for its cases, else the refusal matcher's."""
    own = (rule for rule in (Oracle(), TopicJudge()) if any(rule.judge(case, "") != SILENT for case in cases))
    judge = next(own, RefusalMatcher()).kind
    return unsafe(Results.of(run).rows(judge)) if judge in run.judges() else {}
