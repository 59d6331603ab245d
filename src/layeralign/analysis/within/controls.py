"""The effect of the picture: cases compared with copies that have no picture, a blank one, or noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from layeralign.analysis.metrics import Estimate, estimates, measured
from layeralign.analysis.rows import Rows, pair
from layeralign.cases.controls import CONTROLS
from layeralign.exits import Exits
from layeralign.stats.paired import Change, change, p_value


@dataclass(frozen=True)
class ControlMetrics:
    """One control at one exit, compared with the same cases with their own picture.

    Attributes:
        control: what replaces the picture: `no picture`, `blank` or `noise`.
        exit, name, default: the exit, as in `ExitMetrics`.
        cases: the number of cases that were run in both versions.
        own: shares of these cases with their own picture, by name, as in `Metrics`.
        instead: the same shares with the control.
        difference: `own` minus `instead`, paired by case; None where one of them was not measured.
        p_differs: two-sided p-value of the difference between the two ASRs, Bonferroni-corrected over the
            exits.
        test: the test behind `p_differs`; see `layeralign.stats.paired.p_value`.
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
    own: Mapping[int, Rows], controls: Mapping[int, Rows], exits: Exits
) -> tuple[ControlMetrics, ...]:
    """Return the metrics of every control at every exit where it was run.

    Args:
        own: exit -> rows of the cases themselves.
        controls: exit -> rows of their controls.
        exits: the run's exits.
    """
    found: list[ControlMetrics] = []
    for control in CONTROLS:
        asked = {exit: rows.where(rows.control_is(control)) for exit, rows in sorted(controls.items())}
        asked = {exit: rows for exit, rows in asked.items() if len(rows)}
        found += [
            _figures(control, exit, exits, own.get(exit, rows.where(rows.at < 0)), rows, len(asked))
            for exit, rows in asked.items()
        ]
    return tuple(found)


def _figures(control: str, exit: int, exits: Exits, own: Rows, instead: Rows, tested: int) -> ControlMetrics:
    both = np.intersect1d(own.original, instead.original)
    own, instead = (rows.where(np.isin(rows.original, both)) for rows in (own, instead))
    with_it, without = measured(own), measured(instead)
    pairs = {name: pair(without[name], with_it[name]) for name in with_it}
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
