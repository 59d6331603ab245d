"""The per-exit curve, as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from layeralign.analysis.compare import Comparison, ExitChange
from layeralign.analysis.summary import ExitFigures, Summary
from layeralign.report.table import asr_name
from layeralign.text import printable

RED, BLUE, GREY, GREEN, VIOLET = "#c8102e", "#1f5fa8", "#6b7280", "#2e7d4f", "#7b4fa3"
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "axes.labelcolor": "#374151",
    "xtick.color": "#374151",
    "ytick.color": "#374151",
    "svg.hashsalt": "layeralign",
}


def short_name(model: str) -> str:
    """A model's and its adapter's names without their folders."""
    return " + ".join(printable(Path(part).name or part, 60) for part in model.split(" + "))


def curve(summary: Summary) -> Figure:
    """ASR and refusals per exit above, coherence and utility below, the default exit marked."""
    exits = summary.exits
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 6.4), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.6))
        _interval(above, exits)
        done = "answered" if asr_name(summary) == "ASR" else "not refused"
        _line(above, exits, "asr", RED, f"harmful, {done} ({asr_name(summary)})", marker="o", linewidth=2.2)
        _line(above, exits, "over_refusal", BLUE, "authorised or borderline, refused", marker="s")
        _line(
            above,
            exits,
            "separation",
            GREY,
            "told apart (difference of the refusals)",
            marker="D",
            linestyle="--",
        )
        _line(below, exits, "coherence", GREEN, "coherent answers", marker="^")
        _line(below, exits, "utility", VIOLET, "picture questions right", marker="v")
        for axes, name in ((above, "safety"), (below, "sense")):
            _frame(axes, summary, name)
        for e in exits:
            if e.worse and e.asr is not None:
                mark = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "weight": "bold"}
                above.annotate("!", (e.exit, 100 * e.asr), color=RED, **mark)
        below.set_xlabel("encoder exit (0 = patch embeddings)")
        _ticks(below, exits)
        name = short_name(summary.model)
        title = f"{name}: safety and sense at every encoder exit"
        figure.suptitle(title, x=0.01, ha="left", weight="bold", size=13, parse_math=False)
        note = f"ASR: {summary.asr_means}. Band: 95 % interval. ! worse than the default exit."
        figure.supxlabel(note, x=0.01, ha="left", size=8.5, color="#6b7280")
    return figure


def change(comparison: Comparison) -> Figure:
    """ASR, refusal of borderline requests and utility per exit, before and after."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 7.4), layout="constrained")
        panels = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 2))
        name = asr_name(comparison.before)
        _interval(panels[0], comparison.after.exits)
        shown = (
            ("asr", RED, f"harmful requests answered ({name})", "o"),
            ("over_refusal", BLUE, "borderline requests refused", "s"),
            ("utility", VIOLET, "picture questions right", "v"),
        )
        for axes, (key, colour, label, marker) in zip(panels, shown, strict=True):
            before = {"linestyle": "--", "linewidth": 1.2, "alpha": 0.75, "markerfacecolor": "white"}
            _line(axes, comparison.before.exits, key, colour, "before", marker=marker, **before)
            _line(axes, comparison.after.exits, key, colour, "after", marker=marker, linewidth=2.2)
            _frame(axes, comparison.before, "")
            axes.set_title(f"{label}, %", loc="right", fontsize=10, color="#374151")
        _ticks(panels[-1], comparison.exits)
        panels[-1].set_xlabel("encoder exit (0 = patch embeddings)")
        short = short_name(comparison.before.model)
        title = f"{short}: every encoder exit, before and after"
        figure.suptitle(title, x=0.01, ha="left", weight="bold", size=13, parse_math=False)
    return figure


def _ticks(axes: Axes, exits: Sequence[ExitFigures | ExitChange]) -> None:
    """The exits' names, every second one where there are many; a track's name only where it begins."""
    default = next((e.exit for e in exits if e.default), 0)
    shown = [e for e in exits if len(exits) <= 16 or e.exit % 2 == default % 2]
    labels, before = [], ""
    for e in shown:
        track, _, number = e.name.rpartition(":")
        lines = [number, *(["default"] if e.default else []), *([track] if track != before else [])]
        labels.append("\n".join(lines))
        before = track
    axes.set_xticks([e.exit for e in shown], labels)


def _line(axes: Axes, exits: Sequence[ExitFigures], name: str, colour: str, label: str, **style: Any) -> None:
    for track in _tracks(exits):
        points = [(e.exit, 100 * getattr(e, name)) for e in track if getattr(e, name) is not None]
        if points:
            axes.plot(
                *zip(*points, strict=True), color=colour, label=label, markersize=5, clip_on=False, **style
            )
            label = "_again"  # which matplotlib leaves out of the legend


def _interval(axes: Axes, exits: Sequence[ExitFigures]) -> None:
    for track in _tracks(exits):
        known = [e for e in track if e.asr_low is not None and e.asr_high is not None]
        low, high = ([100 * (getattr(e, name) or 0) for e in known] for name in ("asr_low", "asr_high"))
        axes.fill_between([e.exit for e in known], low, high, color=RED, alpha=0.15, linewidth=0)


def _tracks(exits: Sequence[ExitFigures]) -> list[list[ExitFigures]]:
    """Exits by track: what comes after a track's last exit is no neighbour of it."""
    return [list(track) for _, track in groupby(exits, lambda e: e.name.rpartition(":")[0])]


def _frame(axes: Axes, summary: Summary, name: str) -> None:
    axes.axvline(summary.default_exit, color="#111827", linewidth=1, linestyle=":", zorder=0)
    lowest = min(0, *axes.get_ylim())
    axes.set_ylim(-3 if lowest > -5 else lowest, 103)
    axes.set_ylabel(f"{name}, %" if name else "")
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=3)


def svg(figure: Figure) -> str:
    """A figure as one SVG element, the same every time."""
    stream = StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def save(figure: Figure, file: Path) -> None:
    """Write a figure as SVG or PNG, by the file's ending."""
    with matplotlib.rc_context(STYLE):
        metadata = {"Date": None, "Creator": None} if file.suffix == ".svg" else {}
        figure.savefig(file, dpi=150, metadata=metadata)
