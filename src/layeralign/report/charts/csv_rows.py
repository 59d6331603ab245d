"""The numbers behind a chart as table rows, with a header row; shares lie between 0 and 1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from layeralign.report.charts.tradeoff import savings

Lines = Iterator[list[Any]]
_POINT = ("value", "low", "high", "n")


def curve(drawn: dict[str, Any]) -> Lines:
    """Yield every metric of every run at every exit."""
    yield ["run", "metric", "exit", "name", "group", "default", *_POINT]
    for run in drawn["runs"]:
        for metric, points in run["all"].items():
            for exit, point in points.items():
                yield [run["label"], metric, *_exit(run, exit), *point]


def categories(drawn: dict[str, Any]) -> Lines:
    """Yield every metric of every category, run and exit."""
    yield ["run", "category", "metric", "exit", "name", "group", "default", *_POINT]
    for run in drawn["runs"]:
        for category, found in run["categories"].items():
            for metric, points in found.items():
                for exit, point in points.items():
                    yield [run["label"], category, metric, *_exit(run, exit), *point]


def tradeoff(drawn: dict[str, Any]) -> Lines:
    """Yield savings, ASR, utility and harm of every exit of every run."""
    asr, utility, harm = ([f"{what}_{name}" for name in _POINT] for what in ("asr", "utility", "harm"))
    yield ["run", "exit", "name", "group", "default", "flops", "saved", *asr, *utility, *harm]
    for run in drawn["runs"]:
        for one in savings(run):
            place = _exit(run, one["exit"])
            yield [
                run["label"],
                *place,
                one["flops"],
                one["saved"],
                *one["asr"],
                *(one["utility"] or [None] * 4),
                *one["harm"],
            ]


def controls(drawn: dict[str, Any]) -> Lines:
    """Yield the ASR with each case's own picture and with each control."""
    sides = [f"{side}_{name}" for side in ("own", "control") for name in _POINT]
    yield ["run", "control", "exit", "name", "group", "default", *sides, "difference", "low", "high"]
    for run in drawn["runs"]:
        for control, found in run["controls"].items():
            for exit, both in found.items():
                change = both["difference"] or [None] * 5
                place = _exit(run, exit)
                yield [run["label"], control, *place, *both["own"], *both["instead"], *change[2:5]]


def changes(drawn: dict[str, Any]) -> Lines:
    """Yield the changes from the first run to every other run."""
    numbers = ("value_before", "value_after", "difference", "low", "high", "n")
    yield ["before", "after", "metric", "exit", "name", "group", "default", *numbers]
    first = drawn["runs"][0]
    for change in drawn["changes"]:
        label = drawn["runs"][change["run"]]["label"]
        for exit, found in change["exits"].items():
            for metric, change_of in found.items():
                if change_of:
                    yield [first["label"], label, metric, *_exit(first, exit), *change_of]


def training(drawn: dict[str, Any]) -> Lines:
    """Yield every curve of every training."""
    yield ["run", "curve", "step", "value"]
    for run in drawn["runs"]:
        for curve, values in (run["training"] or {"curves": {}})["curves"].items():
            for step, value in zip(run["training"]["steps"], values, strict=True):
                yield [run["label"], curve, step, value]


def _exit(run: dict[str, Any], exit: int) -> list[Any]:
    """Return number, name and group in the run's own encoder, and 1 for the default exit or 0."""
    return [exit, *run["places"][exit], int(exit == run["default"])]
