"""The runs that a page or a figure shows, read once."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layeralign._util.text import printable
from layeralign.analysis.compare import Comparison, compare
from layeralign.analysis.results import Results, common_judge
from layeralign.analysis.rows import ScoredRow
from layeralign.analysis.summary import Summary, summarise
from layeralign.errors import LayeralignError
from layeralign.exits import Exits

_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Training:
    """How a run's adapter was trained, from the folder that still holds it.

    Attributes:
        record: what training.json has; see `layeralign.training.state.record`.
        steps: every step's metrics, as log.jsonl has them.
    """

    record: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of the training; see `layeralign.training.settings`."""
        return dict(self.record.get("settings", {}))


@dataclass(frozen=True)
class Judged:
    """What a judge is, and what it said.

    Attributes:
        record: model, revision, hashes, endpoint.
        verdicts: how often it gave which; 0 for those that it never gave.
        invalid: reasons why its words are invalid, the most frequent first.
    """

    record: Mapping[str, Any]
    verdicts: Mapping[str, int]
    invalid: tuple[str, ...]


@dataclass(frozen=True)
class RunInput:
    """One run.

    Attributes:
        label: what tells it from the other runs.
        rows: exit -> what was answered there, controls left out.
        judges: by name.
        training: None without adapter, or where its folder is gone or holds another one.
    """

    label: str
    results: Results
    summary: Summary
    rows: Mapping[int, Sequence[ScoredRow]]
    judges: Mapping[str, Judged]
    training: Training | None

    @property
    def exits(self) -> Exits:
        """Of the model's encoder."""
        return self.results.exits

    @property
    def identity(self) -> Mapping[str, Any]:
        """What shaped the answers."""
        return self.results.identity

    @property
    def sessions(self) -> Sequence[Mapping[str, Any]]:
        """When and how rows were added."""
        return self.results.sessions

    @property
    def cost(self) -> Mapping[str, Any]:
        """What its exits take; see `layeralign.vlm.cost.record`. Empty in runs that have none."""
        return self.results.noted.get("cost", {})

    @property
    def adapted(self) -> bool:
        """Whether it is of a model with an adapter."""
        return bool(self.identity.get("adapter"))


@dataclass(frozen=True)
class Report:
    """What is shown.

    Attributes:
        runs: the first is what the others are compared with.
        changes: for every run but the first, what changed from the first to it, or why that cannot be said.
    """

    runs: tuple[RunInput, ...]
    changes: tuple[Comparison | str, ...]

    @property
    def comparisons(self) -> list[tuple[RunInput, Comparison]]:
        """The runs that can be compared with the first."""
        pairs = zip(self.runs[1:], self.changes, strict=True)
        return [(run, change) for run, change in pairs if isinstance(change, Comparison)]


def gather(
    paths: Sequence[Path],
    judge: str | None = None,
    quality: Path | None = None,
    allow: Collection[str] = (),
) -> Report:
    """Read and sum up runs.

    Args:
        paths: their folders.
        judge: whose verdicts make the ASR; by default the most trusted that has judged every harmful answer
            of all runs, and where there is none, or a single run, the most trusted that has judged in each.
        quality: a file with that judge's quality, as `summarise` takes it.
        allow: in what runs may differ that are compared, as `compare` takes it.

    Raises:
        LayeralignError: there is no run, one is named twice, or nothing in one is judged.
    """
    if not paths:
        raise LayeralignError("report: no run is named; expected the --out of a scan")
    runs = [Results.load(path) for path in paths]
    asked = judge or (common_judge(runs) if len(runs) > 1 else None)
    return together([(run, summarise(run, asked, quality)) for run in runs], allow)


def together(runs: Sequence[tuple[Results, Summary]], allow: Collection[str] = ()) -> Report:
    """The same for runs that were read and summed up already.

    Raises:
        LayeralignError: one is named twice.
    """
    paths = [run.path.resolve() for run, _ in runs]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise LayeralignError(f"run {twice}: is named twice")
    shown = [_shown(run, label, summary) for (run, summary), label in zip(runs, labels(paths), strict=True)]
    return Report(tuple(shown), tuple(_change(shown[0], other, allow) for other in shown[1:]))


def compared(before: Results, after: Results, found: Comparison) -> Report:
    """A report of two runs that were read and compared already."""
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
    verdicts: dict[str, Counter[str]] = {name: Counter() for name in run.judges}
    for row in run.judged:
        if row.judge:
            verdicts[row.judge][row.verdict] += 1
    return {
        name: Judged(run.judge_records[name], said, tuple(why for why, _ in run.invalid[name]))
        for name, said in verdicts.items()
    }


def _change(before: RunInput, after: RunInput, allow: Collection[str]) -> Comparison | str:
    """By the judge that both are shown by; where there are two, `compare` says what it thinks of that."""
    judge, other_judge = before.summary.asr_judge, after.summary.asr_judge
    try:
        return compare(before.results, after.results, allow, judge if judge == other_judge else None)
    except LayeralignError as error:
        return str(error)


def labels(paths: Sequence[Path]) -> list[str]:
    """Names of runs, as short as tells them apart: their folders, without what all have in common."""
    if len(paths) == 1:
        return [printable(paths[0].name, 60)]
    shared = Path(os.path.commonpath(paths))
    parts = [path.relative_to(shared).parts or (path.name,) for path in paths]
    inner = {part[-1] for part in parts if len(part) > 1}
    if len(inner) == 1:  # before, exit-0/run, exit-3/run: the last says nothing
        shorter = [part[:-1] if len(part) > 1 else part for part in parts]
        parts = shorter if len(set(shorter)) == len(parts) else parts
    return [printable("/".join(part), 60) for part in parts]


def _training(run: Results) -> Training | None:
    """The training of the adapter that the run was made with, where its folder still holds just that one."""
    hashes = run.identity.get("adapter") or {}
    folder = Path(run.model.rpartition(" + ")[2])
    try:
        weights = hashlib.sha256((folder / _WEIGHTS).read_bytes()).hexdigest()
        if weights != hashes.get(_WEIGHTS):
            return None
        record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
        return Training(record, [json.loads(line) for line in lines])
    except (OSError, ValueError):
        return None
