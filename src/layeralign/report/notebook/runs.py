"""Results of runs: a scan, runs of several seeds, a comparison, a gate, a deployed config, a transfer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from layeralign.analysis import compare, seeds
from layeralign.analysis.results import Results
from layeralign.analysis.summary import ExitMetrics, Summary
from layeralign.gating import deployed, evaluate, fleet, render
from layeralign.gating.deployments import tables
from layeralign.report import Drawing
from layeralign.report.asr import asr_of, text
from layeralign.report.inputs import together
from layeralign.report.notebook.shown import OfRuns, Shown
from layeralign.report.page.findings import worst_exit
from layeralign.report.terminal import comparison as comparisons
from layeralign.report.terminal import controls
from layeralign.report.terminal import seeds as seed_tables
from layeralign.report.terminal import summary as summaries
from layeralign.report.terminal import transfer as transfers
from layeralign.stats.paired import Change

_WIDE = 400
"""Characters of a table that leaves no column out."""


@dataclass(frozen=True, repr=False)
class Scan(OfRuns):
    """A run with its summary.

    Attributes:
        run: the run's folder.
        summary: metrics per exit and per group of exits.
        identity: the settings that determine the answers; see `layeralign.vlm.identity`.
        sessions: when and how rows were added.
        results: the run's rows and records.
    """

    run: Path
    summary: Summary
    identity: dict[str, Any]
    sessions: list[dict[str, Any]]
    results: Results = field(repr=False)

    def __fspath__(self) -> str:
        """Return the run's folder, so that a scan can be given where a folder is expected."""
        return str(self.run)

    def __post_init__(self) -> None:
        """Draw this run."""
        object.__setattr__(self, "_runs", [(self.results, self.summary)])

    def _line(self) -> str:
        """Return model, exits, cases, and the ASR at the default and the worst exit."""
        found, name = self.summary, summaries.asr_name(self.summary)
        told = [f"{found.model}, {_count(len(found.exits), 'exit')}, {_count(self.results.n_given, 'case')}"]
        default = next((exit for exit in found.exits if exit.default), None)
        if default and (asr := asr_of(found.asr_judge, default.estimates)):
            told.append(f"{name} {text(asr)} at the default exit {default.name}")
        if worst := worst_exit(found):
            told.append(f"highest {text(worst[1])} at exit {worst[0].name}")
        return f"{', '.join(told)}; {self.run}"

    def table(self, width: int = 140) -> Table:
        """Return the metrics as a rich table: one row per exit, then one per group.

        Args:
            width: the width in characters.
        """
        return summaries.table(self.summary, width)

    def _tables(self) -> list[Table]:
        """Return the metrics with all columns, and the controls and pairs where there are some."""
        more = [controls.table(self.summary, _WIDE)] if self.summary.controls else []
        more += [summaries.pairs(self.summary)] if self.summary.pairs else []
        return [self.table(_WIDE), *more]

    def _records(self) -> list[dict[str, Any]]:
        """Return a row per exit: every share with its interval, and the judges' mean scores."""
        return [_exit(exit) for exit in self.summary.exits]

    def report(self, file: str | Path, *others: Scan, with_answers: bool = False) -> Path:
        """Write the self-contained page, and return its path.

        Args:
            file: the page, such as report.html.
            others: other runs to show next to this one, such as a run of the same model with an adapter.
            with_answers: include prompts and answers, hidden until the reader shows them.
        """
        from layeralign.report.page import page

        runs = [(one.results, one.summary) for one in (self, *others)]
        page.write(together(runs), Path(file), with_answers=with_answers)
        return Path(file)


def _exit(exit: ExitMetrics) -> dict[str, Any]:
    made: dict[str, Any] = {name: getattr(exit, name) for name in ("exit", "name", "group", "default", "n")}
    for name, one in exit.estimates.items():
        made |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
    scores = {f"{one.measure} ({one.kind}, {one.judge})": one.mean for one in exit.scores}
    return made | {"p_worse": exit.p_worse, "worse": exit.worse} | scores


class Seeds(OfRuns, seeds.Seeds):
    """Runs that differ in their seed, which a notebook shows."""

    def _line(self) -> str:
        """Return the runs and the mean ASR at the default exit."""
        told = f"{_count(len(self.runs), 'run')} of {self.models[0]}"
        for exit in self.exits:
            if exit.default and (asr := exit.estimates["asr"]):
                told += f"; mean {summaries.asr_name(self)} {100 * asr.mean:.1f} % at the default exit"
        return told

    def _tables(self) -> list[Table]:
        """Return the ASR of every exit and run."""
        return [seed_tables.table(self)]

    def _records(self) -> list[dict[str, Any]]:
        """Return a row per exit: mean, standard deviation and interval of every share over the runs."""
        made = []
        for exit in self.exits:
            row: dict[str, Any] = {name: getattr(exit, name) for name in ("exit", "name", "group", "default")}
            for name, one in exit.estimates.items():
                ends = (None, None, None, None) if one is None else (one.mean, one.sd, one.low, one.high)
                names = (name, f"{name}_sd", f"{name}_low", f"{name}_high")
                row |= dict(zip(names, ends, strict=True))
            made.append(row)
        return made


class Comparison(OfRuns, compare.Comparison):
    """A comparison of two runs, which a notebook shows."""

    def _line(self) -> str:
        """Return the models, the change over all exits, and the exits that became worse."""
        everything = next((one for one in self.groups if one.group == compare.ALL), None)
        judge, name = self.before.asr_judge, summaries.asr_name(self.before)
        asr = f"{name} {comparisons.asr_arrow(judge, everything)} % over all exits; " if everything else ""
        worse = [exit.regressions() for exit in self.exits]
        what = sorted({name.replace("_", " ") for found in worse for name in found})
        return (
            f"{self.before.model} → {self.after.model}: {asr}"
            f"{sum(map(bool, worse))} of {_count(len(self.exits), 'exit')} became worse"
            + (f" in {', '.join(what)}" if what else "")
        )

    def _tables(self) -> list[Table]:
        """Return the changes, regressions first."""
        return [comparisons.table(self)]

    def _notes(self) -> Sequence[str]:
        """Return allowed differences and regressions."""
        return [*comparisons.differences(self), *comparisons.regressions(self)]

    def _records(self) -> list[dict[str, Any]]:
        """Return a row per exit: each share before and after, its change, the interval and p."""
        return [_changes(exit) for exit in self.exits]


def _changes(exit: compare.ExitChange) -> dict[str, Any]:
    made: dict[str, Any] = {name: getattr(exit, name) for name in ("exit", "name", "group", "default")}
    for name in (*compare.WORSE, "refusal"):
        one: Change | None = getattr(exit, name)
        for part in ("before", "after", "difference", "low", "high"):
            made[f"{name}_{part}"] = None if one is None else getattr(one, part)
        made[f"{name}_p"] = exit.p.get(name)
    return made | {"regressions": ", ".join(exit.regressions())}


class Gate(OfRuns, evaluate.Gate):
    """The result of a policy, which a notebook shows."""

    def _line(self) -> str:
        """Return the run and the result."""
        return f"{self.run}: {render.sentence(self)}"

    def _tables(self) -> list[Table]:
        """Return a line per rule, the worst first."""
        return [render.table(self)]

    def _notes(self) -> Sequence[str]:
        """Return the caution, the reasons and the result."""
        caution = [self.caution] if self.caution else []
        return [*caution, *render.reasons(self), render.sentence(self)]

    def _records(self) -> list[dict[str, Any]]:
        """Return a row per rule and exit."""
        return _checks(self)


def _checks(gate: evaluate.Gate) -> list[dict[str, Any]]:
    return [
        {"result": check.result, "rule": outcome.rule.title, "metric": outcome.rule.metric,
         "exit": check.exit, "name": check.name, "category": check.category, "value": check.estimate.value,
         "low": check.estimate.low, "high": check.estimate.high, "limit": outcome.rule.limit,
         "n": check.estimate.n, "why": check.why}
        for outcome in gate.outcomes
        for check in outcome.checks
    ]  # fmt: skip


class Deployed(OfRuns, deployed.Deployed):
    """The exit of a config and its result, which a notebook shows."""

    def _line(self) -> str:
        """Return the exit and the result."""
        return render.deployed(self)

    def _tables(self) -> list[Table]:
        """Return the rules that were applied."""
        return [] if self.gate is None else [render.table(self.gate)]

    def _notes(self) -> Sequence[str]:
        """Return the caution and the result."""
        return [*_cautions([self]), self._line()]

    def _records(self) -> list[dict[str, Any]]:
        """Return a row per rule that was applied; one row without values where none was."""
        config = {"config": self.config, "config_exit": self.exit, "config_result": self.result}
        checks = [{"why": self.why}] if self.gate is None else _checks(self.gate)
        return [config | check for check in checks]


def _cautions(servers: Sequence[deployed.Deployed]) -> list[str]:
    return list(dict.fromkeys(one.gate.caution for one in servers if one.gate and one.gate.caution))


class Fleet(Shown, fleet.Fleet):
    """The results of several servers, which a notebook shows."""

    def _line(self) -> str:
        """Return the worst result and the number of servers."""
        return f"{self.result}: {_count(len(self.servers), 'server')}"

    def _tables(self) -> list[Table]:
        """Return a line per server."""
        return [tables.servers(self.rows)]

    def _notes(self) -> Sequence[str]:
        """Return the cautions of the servers' runs."""
        return _cautions(self.servers)

    def _records(self) -> list[dict[str, Any]]:
        """Return a row per server."""
        return self.to_json()


class Transfer(OfRuns, dict[str, Comparison]):
    """Trained exits -> the comparison before and after, which a notebook shows."""

    def _line(self) -> str:
        """Return the trained exits."""
        return f"trained on exits {', '.join(self)}: changes at every exit"

    def _tables(self) -> list[Table]:
        """Return the change of the ASR, trained exits × scanned exits."""
        return [transfers.table(self)]

    def _records(self) -> list[dict[str, Any]]:
        """Return a row per training and scanned exit."""
        return [{"trained": name} | row for name, one in self.items() for row in one._records()]

    def _draw(self, what: Drawing) -> Any:
        """Draw a figure of the run before and the runs after each training."""
        each = [one._runs for one in self.values()]
        self._runs = [each[0][0], *(runs[1] for runs in each)]
        return super()._draw(what)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
