"""The data of the charts, on the page and on paper: plain lists and objects, ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from layeralign._util.text import printable
from layeralign.analysis.metrics import Estimate
from layeralign.judges.kinds import HUMAN
from layeralign.report.charts import metrics as measures
from layeralign.report.inputs import Report, RunInput
from layeralign.stats.paired import Change

_STEPS = 400
"""Number of a training's steps above which the drawn steps are thinned out."""
_CURVES = (
    ("reward", "Reward of sampled answers"),
    ("refused_harmful", "Harmful requests refused in training"),
    ("refused_others", "Other requests refused in training"),
    ("kl", "KL from the reference policy, per answer"),
    ("retention_kl", "KL at the default exit, per token"),
    ("imitation_loss", "Loss"),
    ("entropy", "Entropy per token"),
)
CHANGED = ("asr", "over_refusal", "utility")
"""Metrics of a transfer matrix."""


def series(report: Report) -> dict[str, Any]:
    """Return all data of the page's charts.

    Untrusted text is made printable here; numbers are rounded to five decimals.
    """
    shown = measures.metrics(report)
    runs = [_run(run, [metric.key for metric in shown]) for run in report.runs]
    known = {exit: run for run in reversed(report.runs) for exit in run.rows}
    return {
        "exits": [
            {"exit": exit, "name": run.exits.name(exit), "group": run.exits.group(exit),
             "track": run.exits.place(exit)[0]}
            for exit, run in sorted(known.items())
        ],
        "metrics": [
            asdict(metric) | {"label": printable(metric.label, 120), "short": printable(metric.short, 40)}
            for metric in shown
        ],
        "categories": sorted({name for run in runs for name in run["categories"]}),
        "runs": runs,
        "changes": [
            {"run": report.runs.index(run),
             "exits": {e.exit: {key: _change(getattr(e, key)) for key in CHANGED} for e in found.exits}}
            for run, found in report.comparisons
        ],
    }  # fmt: skip


def harmful_categories(drawn: Mapping[str, Any]) -> list[str]:
    """Return the categories with judged harmful cases in at least one run."""
    return [name for name in drawn["categories"]
            if any("asr" in run["categories"].get(name, {}) for run in drawn["runs"])]  # fmt: skip


def _run(run: RunInput, keys: Sequence[str]) -> dict[str, Any]:
    return {
        "label": run.label,
        "default": run.summary.default_exit,
        "places": {exit: [run.exits.name(exit), run.exits.group(exit)] for exit in run.rows},
        "worse": [e.exit for e in run.summary.exits if e.worse],
        "flops": {exit: flops for exit, flops in run.cost.get("flops", {}).items() if flops is not None},
        "all": _points(measures.by_exit(run), keys),
        "harm": "asr" if run.summary.asr_judge == HUMAN else "asr_worst_case",  # people label a sample
        "categories": {name: _points(found, keys) for name, found in measures.by_category(run).items()},
        "controls": _controls(run),
        "training": training(run.training.steps) if run.training else None,
    }


def _points(found: Mapping[int, Mapping[str, Estimate]], keys: Sequence[str]) -> dict[str, Any]:
    """Map metric and exit to value, low, high and rows."""
    made: dict[str, Any] = {}
    for key in keys:
        points = {exit: _point(at.get(key)) for exit, at in found.items()}
        if measured := {exit: point for exit, point in points.items() if point}:
            made[key] = measured
    return made


def _point(estimate: Estimate | None) -> list[float | int | None] | None:
    if estimate is None or estimate.value is None:
        return None
    return [_round(estimate.value), _round(estimate.low), _round(estimate.high), estimate.n]


def _controls(run: RunInput) -> dict[str, Any]:
    """Map control and exit to the ASR with the own picture, with the control, and the difference."""
    made: dict[str, Any] = {one.control: {} for one in run.summary.controls}
    for one in run.summary.controls:
        own, instead = (_point(side["asr"]) for side in (one.own, one.instead))
        if own and instead:
            found = {"own": own, "instead": instead, "difference": _change(one.difference["asr"])}
            made[one.control][one.exit] = found
    return made


def _change(change: Change | None) -> list[float | int | None] | None:
    """Return before, after, difference, its ends, and the number of cases."""
    if change is None:
        return None
    numbers = (change.before, change.after, change.difference, change.low, change.high)
    return [*map(_round, numbers), change.n]


def training(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the step numbers, and the curves of the metrics that this training has."""
    if not steps:
        return None
    steps = steps[:: -(-len(steps) // _STEPS)]
    curves = {label: [_round(step.get(key)) for step in steps] for key, label in _CURVES if key in steps[0]}
    return {"steps": [step["step"] + 1 for step in steps], "curves": curves}


def _round(number: object) -> float | None:
    """Return a number of a log, rounded; None for anything else."""
    return round(number, 5) if isinstance(number, int | float) and abs(number) < 1e300 else None
