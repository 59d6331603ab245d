"""Results that are no runs: cases, checks of a model, costs, plans, trainings, a judge's quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from layeralign import diagnosis
from layeralign._util.text import printable
from layeralign.analysis import plan, screen
from layeralign.analysis.judging.calibrate import Calibration
from layeralign.cases.cache import folder
from layeralign.cases.case import Case
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.errors import LayeralignError
from layeralign.report import Drawing
from layeralign.report.notebook.shown import Shown
from layeralign.report.terminal import cases as case_tables
from layeralign.report.terminal import doctor, encoder, judges
from layeralign.report.terminal import plan as plan_tables
from layeralign.report.terminal import screen as screen_tables
from layeralign.vlm import cost

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from layeralign.report.charts.plots import Curve

_WIDTH = 6.75
"""Inches: two columns of a paper."""


def _draw(
    name: str, what: Drawing, curves: dict[str, Curve], below: str, ticks: dict[float, str] | None = None
) -> Figure:
    """Draw panels as `curve`.

    Raises:
        LayeralignError: another figure is asked for, or there is nothing to draw.
    """
    import matplotlib

    from layeralign.report.charts import plots

    if what != "curve" or not curves:
        raise LayeralignError(f"figure {what}: {name} has none; to_frame() has its numbers")
    with matplotlib.rc_context(plots.STYLE):
        return plots.panels(curves, _WIDTH, below, ticks or {})


class Screen(Shown, screen.Screen):
    """A screen, which a notebook shows."""

    def _line(self) -> str:
        """Return the worst exit."""
        worst = self.worst_first[0]
        return f"{self.model}, {self.cases} harmful cases: most harm at exit {worst.name} ({worst.harm:.0%})"

    def _tables(self) -> list[Table]:
        """Return the exits, the most harmful first."""
        return [screen_tables.table(self)]

    def _notes(self) -> Sequence[str]:
        """Return how the harm was estimated."""
        return [screen_tables.told(self)]

    def _records(self) -> list[dict[str, Any]]:
        """Return a row per exit."""
        return [asdict(exit) for exit in self.exits]

    def _draw(self, what: Drawing) -> Figure:
        """Draw the estimated harm over the exits."""
        harm: Curve = {one.exit: (100 * one.harm, 100 * one.low, 100 * one.high) for one in self.exits}
        names: dict[float, str] = {one.exit: one.name for one in self.exits}
        return _draw("Screen", what, {"Estimated harm, %": harm}, "encoder exit", names)


class Diagnosis(Shown, diagnosis.Diagnosis):
    """Checks of a model, which a notebook shows."""

    def _line(self) -> str:
        """Return the number of failed checks."""
        failed = [check.name for check in self.checks if check.result == "fail"]
        told = f"failed: {', '.join(failed)}" if failed else "none failed"
        return f"{self.model} ({self.family}, {self.dtype}), {len(self.checks)} checks, {told}"

    def _tables(self) -> list[Table]:
        """Return a row per check."""
        return [doctor.table(self)]

    def _records(self) -> list[dict[str, Any]]:
        """Return a row per check."""
        return [asdict(check) for check in self.checks]


class Encoder(Shown, cost.Encoder):
    """A model's encoder, which a notebook shows."""

    def _line(self) -> str:
        """Return model, family, blocks and default exit."""
        return f"{self.model}, family {self.family}, {self.layers} blocks, default exit {self.default}"

    def _tables(self) -> list[Table]:
        """Return the components of the model, and the cost of each exit."""
        return [encoder.heading(self), encoder.table(self)]

    def _records(self) -> list[dict[str, Any]]:
        """Return a row per exit."""
        return [asdict(exit) for exit in self.exits]

    def _draw(self, what: Drawing) -> Figure:
        """Draw the FLOPs of each exit, and its time where it was measured."""
        known = [one for one in self.exits if one.share is not None]
        timed = [one for one in self.exits if one.seconds is not None]
        curves: dict[str, Curve] = {}
        if known:
            curves["FLOPs of the encoder, % of the default exit"] = {
                one.exit: (100 * (one.share or 0), None, None) for one in known
            }
        if timed:
            curves["Time of the encoder, ms"] = {
                one.exit: (1000 * (one.seconds or 0), None, None) for one in timed
            }
        return _draw("Encoder", what, curves, "encoder exit", {one.exit: one.name for one in self.exits})


class Plan(Shown, plan.Plan):
    """A plan, which a notebook shows."""

    source: str
    """The origin of the rate, in words."""

    def _line(self) -> str:
        """Return the harmful cases and the answers."""
        return f"{self.harmful} harmful cases of {self.cases}, {self.rows:,} answers at {self.exits} exits"

    def _tables(self) -> list[Table]:
        """Return the cases that are needed."""
        return [plan_tables.table(self)]

    def _notes(self) -> Sequence[str]:
        """Return rows, precision and time."""
        return plan_tables.lines(self, self.source)

    def _records(self) -> list[dict[str, Any]]:
        """Return one row."""
        made = self.to_json()
        for name in ("default", "runs"):
            needed = made.pop(name) or {}
            made |= {f"{name}_{part}": needed.get(part) for part in ("tests", "best", "cautious")}
        return [made]


class Cases(Shown, list[Case]):
    """Cases, which a notebook counts; the text of harmful cases is not shown."""

    def _line(self) -> str:
        """Return the number of cases of each kind."""
        kinds = dict.fromkeys(case.kind for case in self)
        counts = (f"{sum(case.kind == kind for case in self)} {kind}" for kind in kinds)
        return f"{len(self)} cases: {', '.join(counts)}"

    def _tables(self) -> list[Table]:
        """Return counts per kind and category."""
        return [case_tables.table(self)]

    def _notes(self) -> Sequence[str]:
        """Return what the cases cannot measure."""
        return case_tables.remarks(self)

    def _records(self) -> list[dict[str, Any]]:
        """Return a row per case."""
        return [
            {"id": case.id, "kind": case.kind, "category": case.category, "prompt": case.prompt,
             "reference": case.reference, "image": case.picture and case.picture.path,
             "image_sha256": case.picture and case.picture.sha256}
            for case in self
        ]  # fmt: skip


class Benchmarks(Shown, list[Benchmark]):
    """The public benchmarks that `cases` knows by name."""

    def _line(self) -> str:
        """Return their names."""
        return ", ".join(one.name for one in self)

    def _tables(self) -> list[Table]:
        """Return a row per benchmark."""
        return [case_tables.known(folder(""))]

    def _records(self) -> list[dict[str, Any]]:
        """Return a row per benchmark."""
        names = ("name", "title", "kind", "by_hand", "licence", "source", "revision")
        return [{name: getattr(one, name) for name in names} for one in self]


class Calibrations(Shown, list[Calibration]):
    """The quality of judges, which a notebook shows."""

    def _line(self) -> str:
        """Return the judges."""
        return ", ".join(f"{one.judge}: measured on {one.source}" for one in self)

    def _tables(self) -> list[Table]:
        """Return sensitivity and specificity."""
        return [judges.table(one) for one in self]

    def _notes(self) -> Sequence[str]:
        """Return what a reader must know."""
        return [judges.EXPLAINED, *judges.notes(self)]

    def _records(self) -> list[dict[str, Any]]:
        """Return a row per judge and group of exits; the group `all` has all rows."""
        return [
            {"judge": one.judge, "group": group} | asdict(measured)
            for one in self
            for group, measured in ({"all": one.all} | dict(one.groups)).items()
        ]


class Training(Shown, list[dict[str, Any]]):
    """The metrics of every step of a training, which a notebook shows."""

    def _line(self) -> str:
        """Return the number of steps and the last metrics."""
        last = self[-1] if self else {}
        told = [f"{name} {last[name]:.2f}" for name in ("reward", "refused_harmful", "kl") if name in last]
        return f"{len(self)} steps{', last: ' if told else ''}{', '.join(told)}"

    def _tables(self) -> list[Table]:
        """Return the last steps."""
        from layeralign.training.state import log  # TensorBoard's import takes seconds

        return [log.table(self, f"{len(self)} steps, the last ones")]

    def _records(self) -> list[dict[str, Any]]:
        """Return a row per step."""
        plain = ({k: v for k, v in step.items() if not isinstance(v, dict)} for step in self)
        return [row | {"step": row["step"] + 1} for row in plain]

    def _draw(self, what: Drawing) -> Figure:
        """Draw the curves of the training over its steps."""
        from layeralign.report.charts.series import training

        found = training(self) or {"steps": [], "curves": {}}
        curves: dict[str, Curve] = {
            label: {step: (value, None, None) for step, value in zip(found["steps"], values, strict=True)}
            for label, values in found["curves"].items()
        }
        return _draw("Training", what, curves, "step")


class RewardTraining(Shown, dict[str, Any]):
    """The record of a reward model's training, which a notebook shows."""

    def _line(self) -> str:
        """Return the held-out accuracy."""
        found = self["held_out"]
        if not found["n"]:
            return f"trained on {self['pairs']['trained']} pairs, none held out"
        ends = f"[{100 * found['low']:.1f}, {100 * found['high']:.1f}]"
        return f"held-out accuracy {100 * found['accuracy']:.1f} % {ends}, n = {found['n']}"

    def _tables(self) -> list[Table]:
        """Return the settings and the accuracy."""
        made = Table(box=box.SIMPLE_HEAD, title=self._line(), title_justify="left")
        (row,) = self._records()
        for name in row:
            made.add_column(name, justify="right")
        made.add_row(*(Text(printable(str(value), 60)) for value in row.values()))
        return [made]

    def _records(self) -> list[dict[str, Any]]:
        """Return one row."""
        about = {"base": self["base"]["name"], "pairs": self["pairs"]["trained"]}
        return [about | dict(self["settings"]) | dict(self["held_out"])]
