"""What a sequential scan asks next; `layeralign.analysis.sequential` says when it stops."""

from __future__ import annotations

from collections.abc import Sequence

from layeralign.analysis.results import Results
from layeralign.analysis.sequential import StoppingRule, harmful, order, stops, unsafe, wanted
from layeralign.cases.case import Case
from layeralign.decode.stream import Query
from layeralign.errors import LayeralignError
from layeralign.exits import Exits
from layeralign.judges.oracle import Oracle
from layeralign.judges.refusal import RefusalMatcher
from layeralign.runs.store import Run
from layeralign.sweep.plan import grid, missing


def check(rule: StoppingRule, cases: Sequence[Case], samples: int) -> None:
    """Refuse what cannot be scanned sequentially.

    Raises:
        LayeralignError: a precision outside 0 to 0.5, several samples, controls, or no harmful case.
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
    """Refuse a part of a run's cases: which of them are asked is the order's to say.

    Raises:
        LayeralignError: the run has a case that is not among these.
    """
    if left := {case.id for case in run.given()} - {case.id for case in cases}:
        raise LayeralignError(
            f"run {run.path}: {len(left)} of its cases are missing, such as {min(left)!r}; a scan with "
            "precision needs all of the run's cases"
        )


def next_rows(run: Run, rule: StoppingRule, cases: Sequence[Case], exits: Sequence[int]) -> list[Query]:
    """What is to be answered before the next look; nothing where every exit is done.

    Cases that are not harmful are asked in proportion.

    Args:
        run: with every row judged by rules.
        rule: of the scan.
        cases: all of the run's that are no controls.
        exits: that are asked; the default exit is, too, where the run has it.
    """
    said = _said(run, cases)
    default = Exits.from_json(run.encoder).default
    asked = sorted({*exits, *({default} & said.keys())})
    keys = harmful(run.given(), rule.seed)
    for exit in asked:
        said.setdefault(exit, {})
    until = wanted(stops(rule, keys, said, default), asked, default, len(keys))
    first = [id for id, *_ in keys]
    rest = order({case.id for case in cases} - set(first), rule.seed)
    chosen = {
        (id, exit)
        for exit, n in until.items()
        for id in (*first[:n], *rest[: round(len(rest) * n / len(first))])
    }
    return missing(run, [row for row in grid(cases, asked, 1) if (row[0].id, row[1]) in chosen])


def _said(run: Run, cases: Sequence[Case]) -> dict[int, dict[str, bool | None]]:
    """What the rules said at each exit: the oracle where it has a word, else the refusal matcher."""
    oracle = Oracle()
    exact = any(oracle.judge(case, "").verdict != "not applicable" for case in cases)
    judge = Oracle.kind if exact else RefusalMatcher.kind
    return unsafe(Results.of(run).rows(judge)) if judge in run.judges() else {}
