"""The two charts that are drawn for papers, from the data of `layeralign.report.charts.series`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib import figure as figures
from matplotlib.axes import Axes

from layeralign.report.charts.tradeoff import front, savings

Drawn = dict[str, Any]

COLOURS = ("#c04a08", "#0b65a8", "#00795a", "#a2487c", "#8a6a00", "#2a7f9e", "#555b66")
_LINES: Sequence[Any] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), "-.", (0, (3, 1)), ":", (0, (8, 2)))
_MARKERS = "os^Dv*P"
_INK, _SOFT, _BAND, _GRID = "#14181f", "#576070", "#eef0f3", "#dde1e7"
THEMED = {
    _INK: "currentColor",
    "#000000": "currentColor",
    _SOFT: "currentColor",
    _BAND: "color-mix(in srgb, currentColor 7%, transparent)",
    _GRID: "color-mix(in srgb, currentColor 18%, transparent)",
}
"""Colours of a figure -> colours that follow the page's text."""
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
_DPI = 120
"""Pixels per inch in a notebook: two columns of a paper have 810 pixels."""
_PANELS = ("asr", "over_refusal", "utility")
_TICKS = (0, 1, 5, 10, 25, 50, 100)


class Figure(figures.Figure):
    """A figure that a notebook shows whatever its backend."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png", dpi=_DPI)
        return picture.getvalue()


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


def _exits(axes: Axes, drawn: Drawn, width: float) -> None:
    shown = _ticks(drawn, width)
    axes.set_xticks([exit["exit"] for exit in shown], [exit["name"] for exit in shown])
    axes.set_xlabel("encoder exit")


def _legend(figure: Figure, *, several: bool) -> None:
    if several:
        handles, names = figure.axes[0].get_legend_handles_labels()
        place: dict[str, Any] = {"loc": "outside lower center", "ncols": min(3, len(names))}
        for text in figure.legend(handles, names, handlelength=2.6, **place).get_texts():
            text.set_parse_math(False)  # a folder's name is no formula


Curve = Mapping[float, tuple[float | None, float | None, float | None]]
"""x -> value and ends of its interval; None where unknown."""


def panels(curves: Mapping[str, Curve], width: float, below: str, ticks: Mapping[float, str]) -> Figure:
    """Draw one panel for each title and its curve; `ticks` are names of x values, if they have names."""
    figure = Figure(figsize=(width, 0.4 + 1.1 * len(curves)), layout="constrained")
    every = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, curve) in zip(every, curves.items(), strict=True):
        known = [(x, *point) for x, point in curve.items() if point[0] is not None]
        axes.plot([one[0] for one in known], [one[1] for one in known], color=COLOURS[0], linewidth=1.2,
                  marker="o" * bool(ticks), markersize=2.6)  # fmt: skip
        if sure := [one for one in known if one[2] is not None]:
            x, low, high = ([one[at] for one in sure] for at in (0, 2, 3))
            axes.fill_between(x, low, high, color=COLOURS[0], alpha=0.16, linewidth=0)
        axes.set_title(title, loc="left", parse_math=False)
        axes.grid(axis="y", color=_GRID, linewidth=0.5)
        axes.set_axisbelow(True)
    if ticks:
        every[-1].set_xticks([*ticks], [*ticks.values()])
    every[-1].set_xlabel(below)
    return figure


def tradeoff(drawn: Drawn, width: float) -> Figure:
    """Draw the upper end of the harm's interval, and utility, against the saved FLOPs of the encoder."""
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
        panels[0].plot([100 * one["saved"] for one in found], [100 * one["harm"][2] for one in found],
                       label=run["label"], **mark)  # fmt: skip
        best = front(found)
        steps = [[100 * one["saved"] for one in best], [100 * one["harm"][2] for one in best]]
        line: dict[str, Any] = {"color": COLOURS[at % 7], "linestyle": _LINES[at % 7], "linewidth": 0.9}
        panels[0].step(*steps, where="pre", **line)
        if known:
            useful = [one for one in found if one["utility"]]
            panels[1].plot(
                [100 * one["saved"] for one in useful], [100 * one["utility"][0] for one in useful], **mark
            )
    panels[0].set_title("ASR, worst case, upper end of its interval, % (square-root scale)", loc="left")
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
