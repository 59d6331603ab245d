"""The Python interface of the commands: load a model, scan it, inspect the result."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layeralign import benchmarks
from layeralign.analysis.compare import Comparison
from layeralign.analysis.compare import compare as compare_runs
from layeralign.analysis.results import Results
from layeralign.analysis.screen import Screen
from layeralign.analysis.seeds import Seeds
from layeralign.analysis.seeds import across as across_runs
from layeralign.analysis.summary import Summary, summarise
from layeralign.cases.case import Case
from layeralign.cases.controls import with_controls
from layeralign.diagnosis import Diagnosis, diagnose
from layeralign.errors import LayeralignError
from layeralign.gating.deployed import Deployed
from layeralign.gating.deployed import check as check_config
from layeralign.gating.evaluate import Gate
from layeralign.gating.evaluate import gate as gate_run
from layeralign.gating.policy import read as read_policy
from layeralign.judges.kinds import RULES
from layeralign.judges.registry import judges
from layeralign.runs import store
from layeralign.runs.frames import to_datasets, to_pandas, to_polars
from layeralign.sweep.screen import screen as screen_exits
from layeralign.sweep.settings import ScanSettings, names_settings
from layeralign.sweep.sweep import judge as judge_run
from layeralign.sweep.sweep import sweep
from layeralign.vlm.load import load, release
from layeralign.vlm.vlm import Vlm

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

    from layeralign.report import Drawing
    from layeralign.rewards.reward import Reward
    from layeralign.training.settings import AlignSettings

__all__ = [
    "Scan", "across", "align", "check", "compare", "doctor", "gate", "judge", "load", "read", "scan",
    "screen",
    "to_datasets", "to_pandas", "to_polars",
]  # fmt: skip


@dataclass(frozen=True)
class Scan:
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

    def table(self, width: int = 140) -> Table:
        """Return the metrics as a rich table: one row per exit, then one per group.

        Args:
            width: the width in characters.
        """
        from layeralign.report.terminal.summary import table

        return table(self.summary, width)

    def plot(self, file: str | Path | None = None, what: Drawing = "curve") -> Figure:
        """Draw a figure of the run, two columns of a paper wide; see `layeralign.report.charts.figure`.

        Args:
            file: a file to write the figure to (.svg, .pdf or .png).
            what: `curve` or `tradeoff`.
        """
        from layeralign.report.charts import figure
        from layeralign.report.inputs import together

        made = figure.draw(together([(self.results, self.summary)]), what)
        if file is not None:
            figure.save(made, Path(file))
        return made

    def report(self, file: str | Path, *others: Scan, with_answers: bool = False) -> None:
        """Write the self-contained page.

        Args:
            file: the page, such as report.html.
            others: other runs to show next to this one, such as a run of the same model with an adapter.
            with_answers: include prompts and answers, hidden until the reader shows them.
        """
        from layeralign.report.inputs import together
        from layeralign.report.page import page

        runs = [(one.results, one.summary) for one in (self, *others)]
        page.write(together(runs), Path(file), with_answers=with_answers)


@names_settings
def scan(
    model: Vlm | str | Path,
    cases: str | Path | Sequence[Case],
    out: str | Path,
    *,
    limit: int | None = None,
    controls: bool = False,
    **settings: Any,
) -> Scan:
    """Generate an answer to every case at every exit, judge the answers by rules, and summarise the run.

    A scan that was stopped resumes when the same call is made again.

    Args:
        model: from `load`, or an argument of `load`.
        cases: a JSONL file, the name of a benchmark (`testbed`), or cases.
        out: the run's folder; it is created, resumed or extended.
        limit: maximum number of cases.
        controls: whether to run every case also without its picture, with a blank picture and with noise.
        settings: fields of `layeralign.sweep.settings.ScanSettings` and of
            `layeralign.decode.decoding.Decoding` by name: `exits="early,20"`, `max_new_tokens=64`,
            `temperature=0.7`, `samples=4`. `exits` also takes a number or a list, such as `[1, 5]`.

    Raises:
        LayeralignError: an argument is invalid; the message names it.
    """
    chosen = ScanSettings.of(**settings)
    asked = benchmarks.cases(cases, limit=limit, seed=chosen.seed)
    if controls:
        asked = with_controls(asked)
    sweep(model if isinstance(model, Vlm) else load(model), asked, Path(out), chosen).close()
    return read(out)


@names_settings
def screen(
    model: Vlm | str | Path,
    cases: str | Path | Sequence[Case],
    out: str | Path,
    *,
    limit: int | None = None,
    **settings: Any,
) -> Screen:
    """Estimate the harm at each exit without generating answers; see docs/sequential.md.

    The arguments are those of `scan`, without `controls`, `samples` and `precision`. The same folder can hold
    a scan with the same settings afterwards.

    Raises:
        LayeralignError: an argument is invalid; the message names it.
    """
    chosen = ScanSettings.of(**settings)
    if chosen.samples > 1 or chosen.precision is not None:
        raise LayeralignError("screen: generates no answers; remove samples and precision")
    asked = benchmarks.cases(cases, limit=limit, seed=chosen.seed)
    return screen_exits(model if isinstance(model, Vlm) else load(model), asked, Path(out), chosen)


def align(
    model: Vlm | str | Path,
    cases: str | Path | Sequence[Case],
    out: str | Path,
    *,
    reward: Reward | str | None = None,
    settings: AlignSettings | None = None,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """Train a LoRA adapter that is safe at the exits in `settings`; see docs/align.md.

    Args:
        model: from `load` without an adapter, or an argument of `load`; afterwards it has the adapter.
        cases: the training cases, as in `scan`.
        out: the adapter's folder; it is created, or its training is resumed.
        reward: from `load_reward`, or an argument of `load_reward`; supervised methods do not need it.
        settings: see `layeralign.training.settings.AlignSettings`.
        limit: maximum number of cases.

    Returns:
        The metrics of every step.

    Raises:
        LayeralignError: an argument is invalid, or the training collapsed.
    """
    from layeralign.rewards.reward import load_reward
    from layeralign.training.settings import AlignSettings
    from layeralign.training.train import train

    chosen = settings or AlignSettings()
    asked = benchmarks.cases(cases, limit=limit, seed=chosen.seed)
    scorer = load_reward(reward) if isinstance(reward, str) else reward
    vlm = model if isinstance(model, Vlm) else load(model)
    return train(vlm, asked, scorer, Path(out), chosen)


def doctor(model: Vlm | str | Path, *, adapter: str | Path | None = None) -> Diagnosis:
    """Check what a scan of a model relies on: template, ends, context, dtype, decoding; writes nothing.

    Args:
        model: from `load`, or an argument of `load`.
        adapter: the adapter of a model that is not loaded yet, as in `load`.
    """
    return diagnose(model if isinstance(model, Vlm) else load(model, adapter=adapter))


def read(run: str | Path, judge: str | None = None, judge_quality: str | Path | None = None) -> Scan:
    """Summarise a run on disk.

    Args:
        run: the run's folder.
        judge: the judge whose verdicts make the ASR; by default the most trusted judge of the run.
        judge_quality: a file with that judge's error rates, used to correct the ASR; see docs/judges.md.
    """
    quality = None if judge_quality is None else Path(judge_quality)
    found = Results.load(Path(run))
    summary = summarise(found, judge, quality)
    return Scan(Path(run), summary, dict(found.identity), [dict(one) for one in found.sessions], found)


def across(runs: Sequence[str | Path], judge: str | None = None) -> Seeds:
    """Summarise runs of the same cases that differ in seed or adapter, without pooling their rows.

    Args:
        runs: the folders of two or more runs.
        judge: the judge whose verdicts make the ASR; by default the most trusted judge that has judged every
            harmful answer of all runs.
    """
    return across_runs([Results.load(Path(run)) for run in runs], judge)


def compare(
    before: str | Path, after: str | Path, *, allow: Collection[str] = (), judge: str | None = None
) -> Comparison:
    """Compare two runs of the same cases, exit by exit, paired by case.

    Args:
        before: the folder of the run before the change.
        after: the folder of the run after the change.
        allow: allowed differences besides the model's weights: `cases`, `judges`, `encoder`, or a key of the
            identity, such as `decoding`. The result records them.
        judge: the judge whose verdicts make the ASR; by default the most trusted judge that has judged every
            harmful answer of both runs.

    Raises:
        LayeralignError: the runs differ in something else, or have no judged case in common.
    """
    return compare_runs(Results.load(Path(before)), Results.load(Path(after)), allow, judge)


def gate(
    run: str | Path,
    policy: str | Path | Mapping[str, Any],
    *,
    base: str | Path | None = None,
    judge_quality: str | Path | None = None,
) -> Gate:
    """Evaluate a policy on a run; see docs/gate.md.

    Args:
        run: the run's folder.
        policy: a YAML file, or the mapping that such a file holds.
        base: the folder of a run of the same cases, for rules with `no_worse_than: base`.
        judge_quality: a file with the judge's error rates, used to correct the ASR; see docs/judges.md.

    Raises:
        LayeralignError: the policy is invalid, or the runs do not fit the policy.
    """
    rules = read_policy(policy)
    quality = None if judge_quality is None else Path(judge_quality)
    other = None if base is None else Results.load(Path(base))
    return gate_run(Results.load(Path(run)), rules, other, quality)


def check(
    config: str | Path,
    against: str | Path,
    *,
    policy: str | Path | Mapping[str, Any] | None = None,
    limit: float | None = None,
    revision: str | None = None,
    adapter: str | Path | None = None,
) -> Deployed:
    """Determine the exit that a model's config selects, and whether a run has shown it to be safe.

    Args:
        config: a `config.json`, a checkpoint folder, a hub id, or `testbed`; no weights are loaded.
        against: the run's folder.
        policy: the definition of safe, as in `gate`. One of its rules for the exit must be an upper bound of
            the ASR.
        limit: without a policy, the highest safe ASR, 0.05 by default. The exit must also not be
            significantly worse than the default exit.
        revision: the revision of a hub id.
        adapter: the folder of the adapter that is deployed with the model.

    Raises:
        LayeralignError: the config or the run does not exist, or the policy is invalid.
    """
    rules = None if policy is None else read_policy(policy)
    run = Results.load(Path(against))
    return check_config(config, run, policy=rules, limit=limit, revision=revision, adapter=adapter)


def judge(
    run: str | Path,
    names: Sequence[str],
    *,
    endpoint: str | None = None,
    again: bool = False,
    retry_invalid: bool = False,
) -> Scan:
    """Let judges judge the answers of a run; no answer is generated again.

    Args:
        run: the run's folder.
        names: names of judges, `KIND` or `KIND:MODEL`; see docs/judges.md.
        endpoint: base URL of an OpenAI-compatible server that hosts the guards, or of a server with
            Perspective's API.
        again: discard earlier verdicts of these judges; rules (oracle, refusal, vqa) always judge again.
        retry_invalid: repeat rows with an invalid verdict.
    """
    asked = judges(names, endpoint)
    with store.open_run(Path(run)) as opened:
        for one in asked:  # recorded as unfinished even if a stop occurs while a model loads
            opened.ask_judge(one.name)
        for one in asked:
            anew = again or one.kind in RULES
            judge_run(opened, [one.load()], again=anew, retry_invalid=retry_invalid)
            release()  # before the next model is loaded
    return read(run)
