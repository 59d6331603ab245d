"""Figures over exits that need not have the same cases, as those of a sequential run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from layeralign.analysis.metrics import NOTHING, Estimate, Score, named


def mean_figures(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `Figures` has, as means over exits.

    Args:
        parts: of each exit what `figures` gives at its part of alpha (Bonferroni), so that all intervals hold
            together, and the means of their ends, too.
    """
    made = {name: _mean([part["estimates"][name] for part in parts]) for name in parts[0]["estimates"]}
    n, invalid = (sum(part[name] for part in parts) for name in ("n", "invalid"))
    return named(n, invalid, made, _scores(parts))


def _mean(some: Sequence[Estimate]) -> Estimate:
    known = [(e.value, e.low, e.high) for e in some if None not in (e.value, e.low, e.high)]
    if not known:
        return NOTHING
    value, low, high = (fmean(column) for column in zip(*known, strict=True))
    return Estimate(value, sum(e.n for e in some), low, high, f"always valid, mean of {len(known)} exits")


def _scores(parts: Sequence[Mapping[str, Any]]) -> tuple[Score, ...]:
    every: dict[tuple[str, str, str], list[Score]] = {}
    for part in parts:
        for score in part["scores"]:
            every.setdefault((score.judge, score.measure, score.kind), []).append(score)
    return tuple(
        Score(*key, sum(s.n for s in some), sum(s.invalid for s in some), fmean(s.mean for s in some),
              None, None, "")
        for key, some in sorted(every.items())
    )  # fmt: skip
