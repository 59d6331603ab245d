"""The charts in matplotlib, from the data of `layeralign.report.charts.series`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from layeralign.report.charts.series import harmful_categories
from layeralign.report.charts.tradeoff import front, savings

Drawn = dict[str, Any]

COLOURS = ("#c04a08", "#0b65a8", "#00795a", "#a2487c", "#8a6a00", "#2a7f9e", "#555b66")
_LINES: Sequence[Any] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), "-.", (0, (3, 1)), ":", (0, (8, 2)))
_MARKERS = "os^Dv*P"
_INK, _SOFT, _BAND, _GRID = "#14181f", "#576070", "#eef0f3", "#dde1e7"
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _SOFT,
    "axes.linewidth": 0.6,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,
    "svg.hashsalt": "layeralign",
}
_HARM = LinearSegmentedColormap.from_list("harm", ["#ffffff", "#b3420a"])
_CHANGE = LinearSegmentedColormap.from_list("change", ["#0b65a8", "#ffffff", "#b3420a"])
_PANELS = ("asr", "over_refusal", "utility")
_AXIS = "encoder exit"
_TICKS = (0, 1, 5, 10, 25, 50, 100)


def curve(drawn: Drawn, width: float) -> Figure:
    """Draw ASR, refusal of borderline requests and utility over the exits, for all runs."""
    shown = [metric for metric in drawn["metrics"] if metric["key"] in _PANELS] or drawn["metrics"][:1]
    heights = [1.6, *[1.0] * (len(shown) - 1)]
    figure = Figure(figsize=(width, 0.5 + 0.85 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(shown), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for axes, metric in zip(panels, shown, strict=True):
        _groups(axes, drawn, named=axes is panels[0])
        for at, run in enumerate(drawn["runs"]):
            points = run["all"].get(metric["key"], {})
            _line(axes, drawn, at, run["label"], points, 100 if metric["share"] else 1)
            if metric["key"] == "asr":
                _rings(axes, run, points)
        axes.set_title(metric["label"] + (", %" if metric["share"] else ""), loc="left", parse_math=False,
                       pad=11 if axes is panels[0] else 4)  # fmt: skip
        if metric["share"]:
            axes.set_ylim(-3, 103)
        axes.grid(axis="y", color=_GRID, linewidth=0.5)
        axes.set_axisbelow(True)
    _exits(panels[-1], drawn, width)
    _legend(figure, several=len(drawn["runs"]) > 1)
    return figure


def _line(
    axes: Axes, drawn: Drawn, at: int, label: str, points: Mapping[int, Sequence[Any]], scale: float
) -> None:
    """Draw points with their intervals, a separate line for each track of exits."""
    tracks = {exit["exit"]: exit["track"] for exit in drawn["exits"]}
    style: dict[str, Any] = {
        "color": COLOURS[at % 7], "linestyle": _LINES[at % 7], "marker": _MARKERS[at % 7], "linewidth": 1.2,
        "markersize": 2.6, "clip_on": False,
    }  # fmt: skip
    for _, group in groupby(points.items(), lambda item: tracks[item[0]]):
        part = list(group)
        axes.plot([exit for exit, _ in part], [scale * point[0] for _, point in part], label=label, **style)
        label = "_again"  # matplotlib leaves labels with an underscore out of the legend
        known = [(exit, scale * point[1], scale * point[2]) for exit, point in part if point[1] is not None]
        if known:
            x, low, high = ([one[at] for one in known] for at in range(3))
            axes.fill_between(x, low, high, color=style["color"], alpha=0.16, linewidth=0)


def _rings(axes: Axes, run: Mapping[str, Any], points: Mapping[int, Sequence[Any]]) -> None:
    """Draw rings around the exits that are worse than the default exit."""
    worse = [exit for exit in run["worse"] if exit in points]
    ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgecolor": _INK, "markeredgewidth": 0.6}
    if worse:
        high = [100 * points[exit][0] for exit in worse]
        axes.plot(worse, high, "o", markersize=5.5, clip_on=False, **ring)


def _groups(axes: Axes, drawn: Drawn, *, named: bool) -> None:
    """Shade every second group of exits, and mark the default exits."""
    for at, (group, members) in enumerate(groupby(drawn["exits"], lambda exit: exit["group"])):
        exits = [exit["exit"] for exit in members]
        if at % 2 == 0:
            axes.axvspan(exits[0] - 0.5, exits[-1] + 0.5, color=_BAND, linewidth=0, zorder=0)
        if named and len(exits) > 1:
            middle = (exits[0] + exits[-1]) / 2
            text = axes.text(middle, 1.01, group, transform=axes.get_xaxis_transform(), size=6.5,
                             ha="center", va="bottom", color=_SOFT)  # fmt: skip
            text.set_in_layout(False)  # the title's pad leaves space for it
    for default in {run["default"] for run in drawn["runs"]}:
        axes.axvline(default, color=_INK, linewidth=0.7, linestyle=(0, (1, 2)), zorder=1)
    axes.set_xlim(drawn["exits"][0]["exit"] - 0.5, drawn["exits"][-1]["exit"] + 0.5)


def _ticks(drawn: Drawn, width: float) -> list[Mapping[str, Any]]:
    """Return the exits whose names fit, the default exit among them."""
    exits, default = drawn["exits"], drawn["runs"][0]["default"]
    longest = max(len(exit["name"]) for exit in exits)
    every = max(1, round(len(exits) * (0.07 + 0.07 * longest) / width + 0.49))
    start = next((at for at, exit in enumerate(exits) if exit["exit"] == default), 0)
    return [exit for at, exit in enumerate(exits) if (at - start) % every == 0]


def _exits(axes: Axes, drawn: Drawn, width: float, offset: Mapping[int, float] | None = None) -> None:
    shown = _ticks(drawn, width)
    at = [offset[exit["exit"]] if offset else exit["exit"] for exit in shown]
    axes.set_xticks(at, [exit["name"] for exit in shown])
    axes.set_xlabel(_AXIS)


def _legend(figure: Figure, *, several: bool) -> None:
    if several:
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(3, len(names)), handlelength=2.6)


def categories(drawn: Drawn, width: float) -> Figure:
    """Draw the ASR of each category at each exit, one heat map per run."""
    rows, runs = harmful_categories(drawn), drawn["runs"]
    figure = Figure(figsize=(width, 0.4 + len(runs) * (0.35 + 0.17 * len(rows))), layout="constrained")
    for axes, run in zip(figure.subplots(len(runs), 1, squeeze=False)[:, 0], runs, strict=True):
        cells = [
            {exit: 100 * p[0] for exit, p in run["categories"].get(row, {}).get("asr", {}).items()}
            for row in rows
        ]
        name = (
            f"Harmful requests answered, %: {run['label']}"
            if len(runs) > 1
            else "Harmful requests answered, %"
        )
        _map(axes, drawn, rows, cells, width, (_HARM, 0, 100), name)
    figure.axes[-1].set_xlabel(_AXIS)
    return figure


def _map(
    axes: Axes, drawn: Drawn, rows: Sequence[str], cells: Sequence[Mapping[int, float]], width: float,
    colours: tuple[LinearSegmentedColormap, float, float], title: str,
    sure: Iterable[tuple[int, int]] = (),
) -> None:  # fmt: skip
    """Draw a heat map of numbers, rows × exits; the cells (row, exit) in `sure` are bold."""
    exits, bold = [exit["exit"] for exit in drawn["exits"]], set(sure)
    places = {exit: at + 0.5 for at, exit in enumerate(exits)}
    cmap, low, high = colours
    values = [[row.get(exit, float("nan")) for exit in exits] for row in cells]
    axes.pcolormesh(values, cmap=cmap, vmin=low, vmax=high, edgecolors="white", linewidth=0.8)
    axes.invert_yaxis()
    names = [row if len(row) <= 22 else row[:21] + "…" for row in rows]
    axes.set_yticks([at + 0.5 for at in range(len(rows))], names, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, loc="left", parse_math=False)
    _exits(axes, drawn, width, places)
    axes.set_xlabel("")
    for at, row in enumerate(cells):
        for exit, value in row.items() if len(exits) <= 9 * width else ():
            axes.text(places[exit], at + 0.5, f"{value:+.0f}" if low < 0 and round(value) else f"{value:.0f}",
                      ha="center", va="center", size=5.5, weight="bold" if (at, exit) in bold else "normal",
                      color="white" if abs(value) > 65 else _INK)  # fmt: skip


def tradeoff(drawn: Drawn, width: float) -> Figure:
    """Draw the upper end of the ASR's interval, and utility, against the saved FLOPs of the encoder."""
    names = {exit["exit"]: exit["name"] for exit in drawn["exits"]}
    known = any(one["utility"] for run in drawn["runs"] for one in savings(run))
    heights = [1.7, 1.0][: 1 + known]
    figure = Figure(figsize=(width, 0.5 + 0.95 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for at, run in enumerate(drawn["runs"]):
        found = savings(run)
        mark: dict[str, Any] = {
            "color": COLOURS[at % 7],
            "marker": _MARKERS[at % 7],
            "markersize": 3.2,
            "linestyle": "none",
        }
        panels[0].plot([100 * one["saved"] for one in found], [100 * one["asr"][2] for one in found],
                       label=run["label"], **mark)  # fmt: skip
        best = front(found)
        steps = [[100 * one["saved"] for one in best], [100 * one["asr"][2] for one in best]]
        line: dict[str, Any] = {"color": COLOURS[at % 7], "linestyle": _LINES[at % 7], "linewidth": 0.9}
        panels[0].step(*steps, where="pre", **line)
        if known:
            useful = [one for one in found if one["utility"]]
            panels[1].plot(
                [100 * one["saved"] for one in useful], [100 * one["utility"][0] for one in useful], **mark
            )
    panels[0].set_title("ASR, upper end of its interval, % (square-root scale)", loc="left")
    panels[0].set_yscale("function", functions=(np.sqrt, np.square))
    panels[0].set_yticks(_TICKS, [str(tick) for tick in _TICKS])
    panels[0].set_ylim(0, 104)
    if known:
        panels[1].set_title("Picture questions answered rightly, %", loc="left")
        panels[1].set_ylim(-3, 106)
    for axes in panels:
        axes.grid(axis="y", color=_GRID, linewidth=0.5)
        axes.set_axisbelow(True)
    exits = next(savings(run) for run in drawn["runs"] if savings(run))
    above = panels[0].secondary_xaxis("top")
    above.set_xticks([100 * one["saved"] for one in exits], [names[one["exit"]] for one in exits], size=5.5)
    above.tick_params(length=2, pad=1, colors=_SOFT)
    panels[-1].set_xlabel("encoder FLOPs saved against the default exit, %")
    _legend(figure, several=len(drawn["runs"]) > 1)
    return figure


def controls(drawn: Drawn, width: float) -> Figure:
    """Draw the ASR over the exits with each case's own picture and each control, one panel per run."""
    runs = [run for run in drawn["runs"] if any(run["controls"].values())]
    figure = Figure(figsize=(width, 0.5 + 1.3 * len(runs)), layout="constrained")
    panels = figure.subplots(len(runs), 1, sharex=True, squeeze=False)[:, 0]
    for axes, run in zip(panels, runs, strict=True):
        _groups(axes, drawn, named=axes is panels[0])
        both = {exit: sides for found in run["controls"].values() for exit, sides in found.items()}
        sides = {"own picture": {exit: side["own"] for exit, side in sorted(both.items())}} | {
            control: {exit: side["instead"] for exit, side in found.items()}
            for control, found in run["controls"].items()
            if found
        }
        for at, (name, points) in enumerate(sides.items()):
            _line(axes, drawn, at, name, points, 100)
        name = f": {run['label']}" if len(drawn["runs"]) > 1 else ""
        axes.set_title(f"Harmful requests answered, %{name}", loc="left", parse_math=False, pad=11)
        axes.set_ylim(-3, 103)
        axes.grid(axis="y", color=_GRID, linewidth=0.5)
        axes.set_axisbelow(True)
    _exits(panels[-1], drawn, width)
    _legend(figure, several=True)
    return figure


_CHANGES = (
    ("asr", "Harmful requests answered: change, points", 1),
    ("over_refusal", "Borderline requests refused: change, points", 1),
    ("utility", "Picture questions answered rightly: change, points", -1),
)


def changes(drawn: Drawn, width: float) -> Figure:
    """Draw the changes from the first run to each other run; bold where the interval excludes 0."""
    rows = [drawn["runs"][change["run"]]["label"] for change in drawn["changes"]]
    there = [one for one in _CHANGES if any(e[one[0]] for c in drawn["changes"] for e in c["exits"].values())]
    figure = Figure(figsize=(width, 0.4 + len(there) * (0.35 + 0.19 * len(rows))), layout="constrained")
    for axes, (key, title, bad) in zip(
        figure.subplots(len(there), 1, squeeze=False)[:, 0], there, strict=True
    ):
        found = [
            {exit: e[key] for exit, e in change["exits"].items() if e[key]} for change in drawn["changes"]
        ]
        cells = [{exit: 100 * numbers[2] for exit, numbers in row.items()} for row in found]
        sure = [(at, exit) for at, row in enumerate(found) for exit, numbers in row.items()
                if numbers[3] > 0 or numbers[4] < 0]  # fmt: skip
        colours = _CHANGE if bad > 0 else _CHANGE.reversed()
        _map(axes, drawn, rows, cells, width, (colours, -100, 100), title, sure)
    figure.axes[-1].set_xlabel(_AXIS)
    return figure


def training(drawn: Drawn, width: float) -> Figure:
    """Draw the curves of the trainings over their steps, two per row."""
    trained = [(at, run) for at, run in enumerate(drawn["runs"]) if run["training"]]
    names = list(dict.fromkeys(name for _, run in trained for name in run["training"]["curves"]))
    lines = -(-len(names) // 2)
    figure = Figure(figsize=(width, 0.4 + 0.95 * lines), layout="constrained")
    panels = figure.subplots(lines, 2, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        for at, run in trained:
            values = run["training"]["curves"].get(name)
            if values:
                numbers = [float("nan") if value is None else value for value in values]
                axes.plot(run["training"]["steps"], numbers, color=COLOURS[at % 7], linestyle=_LINES[at % 7],
                          linewidth=0.8, label=run["label"])  # fmt: skip
        axes.set_title(name, loc="left", size=6.5)
        axes.grid(axis="y", color=_GRID, linewidth=0.5)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for axes in panels[max(0, len(names) - 2) : len(names)]:
        axes.set_xlabel("step")
    _legend(figure, several=len(drawn["runs"]) > 1)
    return figure
