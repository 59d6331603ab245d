"""The runs of a page or a figure, each read once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layeralign._util.files import read_text
from layeralign._util.text import printable
from layeralign.analysis.compare import Comparison, compare
from layeralign.analysis.results import Results, common_judge
from layeralign.analysis.rows import Rows
from layeralign.analysis.summary import Summary, summarise
from layeralign.errors import LayeralignError
from layeralign.exits import Exits
from layeralign.runs.columns import VERDICTS
from layeralign.vlm.checkpoint import TRAINING, read_json

_WEIGHTS = "adapter_model.safetensors"
_MOST_LOG = 64 * 2**20
"""Largest log of a training, in bytes."""
_SETTINGS = {"method", "exits", "mix", "steps", "rows", "seed"}
"""Settings of a training that a page shows."""


@dataclass(frozen=True)
class Training:
    """The training of a run's adapter, read from the adapter's folder.

    Attributes:
        record: the content of training.json; see `layeralign.training.state.record`.
        steps: the metrics of every step, from log.jsonl.
    """

    record: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings of the training; see `layeralign.training.settings`."""
        return dict(self.record.get("settings", {}))


@dataclass(frozen=True)
class Judged:
    """A judge's record and its verdicts.

    Attributes:
        record: model, revision, hashes, endpoint.
        verdicts: the count of each verdict; 0 for a verdict that does not occur.
        invalid: reasons of invalid verdicts, the most frequent first.
    """

    record: Mapping[str, Any]
    verdicts: Mapping[str, int]
    invalid: tuple[str, ...]


@dataclass(frozen=True)
class RunInput:
    """One run.

    Attributes:
        label: a name that distinguishes the run from the others.
        results: the run's data.
        summary: the run's metrics.
        rows: exit -> its rows, without controls.
        judges: judge -> its record and verdicts.
        training: None without an adapter, and where the adapter's folder is missing or has different weights.
    """

    label: str
    results: Results
    summary: Summary
    rows: Mapping[int, Rows]
    judges: Mapping[str, Judged]
    training: Training | None

    @property
    def exits(self) -> Exits:
        """The exits of the model's encoder."""
        return self.results.exits

    @property
    def identity(self) -> Mapping[str, Any]:
        """The settings that determine the answers."""
        return self.results.identity

    @property
    def sessions(self) -> Sequence[Mapping[str, Any]]:
        """When and how rows were added."""
        return self.results.sessions

    @property
    def cost(self) -> Mapping[str, Any]:
        """The cost of the exits; see `layeralign.vlm.cost.record`. Empty in runs without such a record."""
        return self.results.noted.get("cost", {})

    @property
    def adapted(self) -> bool:
        """Whether the run's model has an adapter."""
        return bool(self.identity.get("adapter"))


@dataclass(frozen=True)
class Report:
    """The content of a page or a figure.

    Attributes:
        runs: the runs; the first one is the baseline of the comparisons.
        changes: for every other run, its comparison with the first run, or the reason why there is none.
    """

    runs: tuple[RunInput, ...]
    changes: tuple[Comparison | str, ...]

    @property
    def comparisons(self) -> list[tuple[RunInput, Comparison]]:
        """The runs that can be compared with the first run."""
        pairs = zip(self.runs[1:], self.changes, strict=True)
        return [(run, change) for run, change in pairs if isinstance(change, Comparison)]


def gather(
    paths: Sequence[Path],
    judge: str | None = None,
    quality: Path | None = None,
    allow: Collection[str] = (),
) -> Report:
    """Read and summarise runs.

    Args:
        paths: the runs' folders.
        judge: the judge whose verdicts make the ASR. For several runs, the default is the most trusted judge
            that has judged every harmful answer of all runs. Without such a judge, and for a single run, each
            run uses its own most trusted judge.
        quality: a file with that judge's error rates, as in `summarise`.
        allow: allowed differences between compared runs, as in `compare`.

    Raises:
        LayeralignError: there is no run, a run is named twice, or a run has no verdicts.
    """
    if not paths:
        raise LayeralignError("report: no run is named; expected the --out of a scan")
    runs = [Results.load(path) for path in paths]
    asked = judge or (common_judge(runs) if len(runs) > 1 else None)
    return together([(run, summarise(run, asked, quality)) for run in runs], allow)


def together(runs: Sequence[tuple[Results, Summary]], allow: Collection[str] = ()) -> Report:
    """Build a report from runs that are already read and summarised.

    Raises:
        LayeralignError: a run is named twice.
    """
    paths = [run.path.resolve() for run, _ in runs]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise LayeralignError(f"run {twice}: is named twice")
    shown = [_shown(run, label, summary) for (run, summary), label in zip(runs, labels(paths), strict=True)]
    return Report(tuple(shown), tuple(_change(shown[0], other, allow) for other in shown[1:]))


def compared(before: Results, after: Results, found: Comparison) -> Report:
    """Build a report from two runs that are already read and compared."""
    names = labels([before.path.resolve(), after.path.resolve()])
    shown = (_shown(before, names[0], found.before), _shown(after, names[1], found.after))
    return Report(shown, (found,))


def _shown(run: Results, label: str, summary: Summary) -> RunInput:
    return RunInput(
        label=label,
        results=run,
        summary=summary,
        rows=run.rows(summary.asr_judge),
        judges=_judges(run),
        training=_training(run),
    )


def _judges(run: Results) -> dict[str, Judged]:
    made = {}
    for name in run.judges:
        code = run.columns.verdicts[name]
        counts = np.bincount(code[code >= 0], minlength=len(VERDICTS)).tolist()
        reasons = tuple(why for why, _ in run.invalid[name])
        made[name] = Judged(run.judge_records[name], dict(zip(VERDICTS, counts, strict=True)), reasons)
    return made


def _change(before: RunInput, after: RunInput, allow: Collection[str]) -> Comparison | str:
    """Compare two runs by their common judge; without one, `compare` chooses or refuses."""
    judge, other_judge = before.summary.asr_judge, after.summary.asr_judge
    try:
        return compare(before.results, after.results, allow, judge if judge == other_judge else None)
    except LayeralignError as error:
        return str(error)


def labels(paths: Sequence[Path]) -> list[str]:
    """Return short, distinct names of runs: their folders without the common part."""
    if len(paths) == 1:
        return [printable(paths[0].name, 60)]
    shared = Path(os.path.commonpath(paths))
    parts = [path.relative_to(shared).parts or (path.name,) for path in paths]
    inner = {part[-1] for part in parts if len(part) > 1}
    if len(inner) == 1:  # before, exit-0/run, exit-3/run: the last part carries no information
        shorter = [part[:-1] if len(part) > 1 else part for part in parts]
        parts = shorter if len(set(shorter)) == len(parts) else parts
    names = [printable("/".join(part), 60) for part in parts]
    if len(set(names)) < len(names):  # they differ in what is cut
        names = [f"{number}: {name}" for number, name in enumerate(names, 1)]
    return names


def _training(run: Results) -> Training | None:
    """Return the training of the run's adapter, if the adapter's folder still has the same weights."""
    hashes = run.identity.get("adapter") or {}
    folder = Path(run.model.rpartition(" + ")[2])
    try:
        if not (folder / _WEIGHTS).is_file():  # a FIFO would be waited for
            return None
        weights = hashlib.sha256((folder / _WEIGHTS).read_bytes()).hexdigest()
        if weights != hashes.get(_WEIGHTS):
            return None
        record = read_json(folder / TRAINING)
        lines = read_text(folder / "log.jsonl", _MOST_LOG).splitlines()
        steps = [json.loads(line) for line in lines]
    except (LayeralignError, OSError, ValueError, RecursionError):
        return None
    return Training(record, steps) if _has_what_is_shown(record, steps) else None


def _has_what_is_shown(record: Mapping[str, Any], steps: Sequence[object]) -> bool:
    """Return whether a record and a log are as `align` writes them; anyone may have written it."""
    settings, cases, reward = (record.get(name) for name in ("settings", "cases", "reward"))
    return (
        isinstance(settings, dict)
        and settings.keys() >= _SETTINGS
        and isinstance(cases, dict)
        and "n" in cases
        and (not reward or (isinstance(reward, dict) and "name" in reward))
        and all(isinstance(step, dict) and type(step.get("step")) is int for step in steps)
    )
