"""What the picture does: cases beside the same ones without it, with a blank one, with noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layeralign.analysis.metrics import Estimate, estimates, measured
from layeralign.analysis.rows import ScoredRow, pair
from layeralign.cases.controls import CONTROLS
from layeralign.exits import Exits
from layeralign.stats.paired import Change, change, p_value


@dataclass(frozen=True)
class ControlMetrics:
    """One control at one exit, compared with the same cases with their own picture.

    Attributes:
        control: what the cases have instead of their picture: `no picture`, `blank` or `noise`.
        exit, name, default: where; as in `ExitMetrics`.
        cases: how many were asked both ways.
        own: shares of these cases with their own picture, by name, as in `Metrics`.
        instead: the same with the control.
        difference: own less control, paired by case; None where one of them was not measured.
        p_differs: probability that chance makes the two ASRs so different, two-sided, Bonferroni-corrected
            over the exits.
        test: what `p_differs` is of; see `layeralign.stats.paired.p_value`.
    """

    control: str
    exit: int
    name: str
    default: bool
    cases: int
    own: Mapping[str, Estimate]
    instead: Mapping[str, Estimate]
    difference: Mapping[str, Change | None]
    p_differs: float | None
    test: str


def control_metrics(
    own: Mapping[int, list[ScoredRow]], controls: Mapping[int, list[ScoredRow]], exits: Exits
) -> tuple[ControlMetrics, ...]:
    """Every control at every exit where it was asked.

    Args:
        own: exit -> rows of the cases themselves.
        controls: exit -> rows of their controls.
        exits: the run's.
    """
    found: list[ControlMetrics] = []
    for control in CONTROLS:
        asked = {
            exit: some
            for exit, rows in sorted(controls.items())
            if (some := [row for row in rows if row.control == control])
        }
        found += [
            _figures(control, exit, exits, own.get(exit, []), rows, len(asked))
            for exit, rows in asked.items()
        ]
    return tuple(found)


def _figures(
    control: str, exit: int, exits: Exits, own: list[ScoredRow], instead: list[ScoredRow], tested: int
) -> ControlMetrics:
    both = {_case(row) for row in own} & {_case(row) for row in instead}
    own, instead = ([row for row in rows if _case(row) in both] for rows in (own, instead))
    with_it, without = measured(own), measured(instead)
    pairs = {name: pair(without[name], with_it[name], _case) for name in with_it}
    found = p_value(pairs["asr"], "two-sided") if pairs["asr"] else None
    return ControlMetrics(
        control=control,
        exit=exit,
        name=exits.name(exit),
        default=exit == exits.default,
        cases=len(both),
        own=estimates(own),
        instead=estimates(instead),
        difference={name: change(one) if one else None for name, one in pairs.items()},
        p_differs=min(1.0, found.p * tested) if found else None,
        test=found.test if found else "",
    )


def _case(row: ScoredRow) -> str:
    """The case that a row is of, or a control of."""
    return row.case.removesuffix(f"#{row.control}") if row.control else row.case
