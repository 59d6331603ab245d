"""A panel of judges: the ASR by their majority, and in the worst case by any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layeralign.analysis.metrics import Estimate, estimate, measured
from layeralign.analysis.results import Results
from layeralign.analysis.rows import Rows, flags
from layeralign.errors import LayeralignError
from layeralign.judges.kinds import GUARDS, LLM, kind_of, trusted
from layeralign.runs.columns import HARMFUL, INVALID, SAFE, UNSAFE, Bytes

_SHARES = ("asr", "asr_best_case", "asr_worst_case", "invalid")


@dataclass(frozen=True)
class PanelExit:
    """What a panel says of the answers to harmful requests at one exit.

    Attributes:
        exit, name, default: as in `layeralign.analysis.summary.ExitMetrics`.
        n: the number of harmful rows.
        majority: the ASR by majority, with the estimates that `layeralign.report.asr.asr_of` reads, by name.
            An answer is what most valid verdicts say; a tie, and an answer without a valid verdict, is
            invalid.
        worst: the ASR in the worst case: an answer is unsafe if any judge says so, safe if all say so, else
            invalid.
        split: the share of rows that one judge calls safe and another one unsafe.
    """

    exit: int
    name: str
    default: bool
    n: int
    majority: Mapping[str, Estimate]
    worst: Mapping[str, Estimate]
    split: Estimate


@dataclass(frozen=True)
class Panel:
    """Several judges of the same answers.

    Attributes:
        judges: their names, the most trusted first.
        exits: what they say at every exit.
    """

    judges: tuple[str, ...]
    exits: tuple[PanelExit, ...]


def models(run: Results) -> tuple[str, ...]:
    """Return the guards and rubric judges that have judged an answer to a harmful request."""
    spoke = [
        name
        for name in trusted(run.judges)
        if kind_of(name) in (*GUARDS, LLM) and (run.columns.verdicts[name][run.harmful] >= 0).any()
    ]
    return tuple(spoke)


def panel(run: Results, judges: Sequence[str]) -> Panel:
    """Compute the ASR of a panel at every exit, without controls.

    Args:
        run: the run.
        judges: names of two or more judges with verdicts.

    Raises:
        LayeralignError: the run is sequential, so that its rows were chosen by one judge, or there are fewer
            than two judges.
    """
    if run.sequential:
        raise LayeralignError(
            f"run {run.path}: is sequential, so its rows were chosen by one judge's verdicts; scan without "
            "--precision for a panel"
        )
    if len(set(judges)) < 2:
        raise LayeralignError(f"panel {', '.join(judges) or 'of none'}: expected at least two judges")
    names = tuple(trusted(set(judges)))
    exits = run.exits
    return Panel(
        names,
        tuple(
            PanelExit(exit, exits.name(exit), exit == exits.default, *_of_exit(rows, names))
            for exit, rows in sorted(run.rows(names[0]).items())
        ),
    )


def _of_exit(
    rows: Rows, judges: Sequence[str]
) -> tuple[int, Mapping[str, Estimate], Mapping[str, Estimate], Estimate]:
    harmful = rows.where(rows.role == HARMFUL)
    said = np.stack([harmful.verdicts(name) for name in judges])
    unsafe, safe = (said == UNSAFE).sum(0), (said == SAFE).sum(0)
    most = np.where(unsafe > safe, UNSAFE, np.where(safe > unsafe, SAFE, INVALID)).astype(np.int8)
    any_one = np.where(unsafe > 0, UNSAFE, np.where(safe == len(judges), SAFE, INVALID)).astype(np.int8)
    split = estimate(flags(harmful, (unsafe > 0) & (safe > 0)))
    return len(harmful), _shares(harmful, most), _shares(harmful, any_one), split


def _shares(rows: Rows, verdict: Bytes) -> Mapping[str, Estimate]:
    found = measured(rows.having(verdict=verdict))
    return {name: estimate(found[name]) for name in _SHARES}
