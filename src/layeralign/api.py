"""The Python face of the verbs: load a model, scan it, look at the result."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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
from layeralign.decode.decoding import Decoding
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
from layeralign.sweep.settings import ScanSettings
from layeralign.sweep.sweep import judge as judge_run
from layeralign.sweep.sweep import sweep
from layeralign.vlm.load import load, release
from layeralign.vlm.vlm import Vlm

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

    from layeralign.report import What
    from layeralign.rewards.reward import Reward
    from layeralign.training.settings import AlignSettings

__all__ = [
    "Scan", "across", "align", "check", "compare", "doctor", "gate", "judge", "load", "read", "scan",
    "screen",
    "to_datasets", "to_pandas", "to_polars",
]  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True)
class Scan:
    """A run, summed up.

    Attributes:
        run: the run's folder.
        summary: figures per exit and per group.
        identity: what shaped the answers; see `layeralign.vlm.identity`.
        sessions: when and how rows were added.
    """

    run: Path
    summary: Summary
    identity: dict[str, Any]
    sessions: list[dict[str, Any]]
    results: Results = field(repr=False)

    def table(self, width: int = 140) -> Table:
        """The figures as a rich table: one row per exit, then one per group; `width` in characters."""
        from layeralign.report.terminal.summary import table

        return table(self.summary, width)

    def plot(self, file: str | Path | None = None, what: What = "curve") -> Figure:
        """A figure of the run, two columns of a paper wide; see `layeralign.report.charts.figure`.

        Args:
            file: where it is also written (.svg, .pdf or .png).
            what: `curve`, `categories`, `tradeoff`, `controls` or `training`.
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
            file: it, as report.html.
            others: further runs to show beside this one, as that of the same model with an adapter.
            with_answers: put what was asked and answered into the file, hidden until it is asked for.
        """
        from layeralign.report.inputs import together
        from layeralign.report.page import page

        runs = [(one.results, one.summary) for one in (self, *others)]
        page.write(together(runs), Path(file), with_answers=with_answers)


def _with_settings(function: Callable[..., T]) -> Callable[..., T]:
    """Name the scan's settings in the function's signature, for help(), editors and the docs."""
    own = [one for one in signature(function).parameters.values() if one.kind is not Parameter.VAR_KEYWORD]
    settings = [one for one in (*fields(ScanSettings), *fields(Decoding)) if one.name != "decoding"]
    named = [Parameter(f.name, Parameter.KEYWORD_ONLY, default=f.default) for f in settings]
    function.__signature__ = Signature([*own, *named])  # type: ignore[attr-defined]
    return function


@_with_settings
def scan(
    model: Vlm | str | Path,
    cases: str | Path | Sequence[Case],
    out: str | Path,
    *,
    limit: int | None = None,
    controls: bool = False,
    **settings: Any,
) -> Scan:
    """Answer every case at every exit, judge the answers with the cheap judges, and summarise the run.

    A scan that was stopped resumes when the same call is made again.

    Args:
        model: from `load`, or what `load` takes.
        cases: a JSONL file, the name of a benchmark (`testbed`), or cases.
        out: the run's folder; it is made, resumed or added to.
        limit: maximum number of cases.
        controls: whether to ask every case also without its picture, with a blank picture and with noise.
        settings: fields of `layeralign.sweep.settings.ScanSettings` and of
            `layeralign.decode.decoding.Decoding` by name: `exits="early,20"`, `max_new_tokens=64`,
            `temperature=0.7`, `samples=4`. `exits` also takes a number or a list, as `[1, 5]`.

    Raises:
        LayeralignError: an argument is wrong; the message names it.
    """
    chosen = ScanSettings.of(**settings)
    asked = benchmarks.cases(cases, limit=limit, seed=chosen.seed)
    if controls:
        asked = with_controls(asked)
    sweep(model if isinstance(model, Vlm) else load(model), asked, Path(out), chosen).close()
    return read(out)


@_with_settings
def screen(
    model: Vlm | str | Path,
    cases: str | Path | Sequence[Case],
    out: str | Path,
    *,
    limit: int | None = None,
    **settings: Any,
) -> Screen:
    """Estimate the harm at each exit without generating answers; see docs/sequential.md.

    Args: as in `scan`, without `controls`, `samples` and `precision`. The same folder can hold a scan
        with the same settings afterwards.

    Raises:
        LayeralignError: an argument is wrong; the message names it.
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
    """Train a LoRA adapter that is safe at the exits that `settings` names; see docs/align.md.

    Args:
        model: from `load` without adapter, or what `load` takes; it carries the adapter afterwards.
        cases: what to train on; as in `scan`.
        out: the adapter's folder; made, or gone on with.
        reward: from `load_reward`, or what that takes; not needed by the supervised methods.
        settings: see `layeralign.training.settings.AlignSettings`.
        limit: only the first so many cases.

    Returns:
        Every step's metrics.

    Raises:
        LayeralignError: something that was given is wrong, or the training collapsed.
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
    """Check what a scan of a model relies on: template, ends, context, dtype, decoding; nothing is written.

    Args:
        model: from `load`, or what `load` takes.
        adapter: of a model that is not loaded yet, as in `load`.
    """
    return diagnose(model if isinstance(model, Vlm) else load(model, adapter=adapter))


def read(run: str | Path, judge: str | None = None, judge_quality: str | Path | None = None) -> Scan:
    """Sum up a run that is on disk.

    Args:
        run: its folder.
        judge: whose verdicts make the ASR; by default the most trusted that has judged.
        judge_quality: a file that says how good that judge is, which corrects the ASR; see docs/judges.md.
    """
    quality = None if judge_quality is None else Path(judge_quality)
    found = Results.load(Path(run))
    summary = summarise(found, judge, quality)
    return Scan(Path(run), summary, dict(found.identity), [dict(one) for one in found.sessions], found)


def across(runs: Sequence[str | Path], judge: str | None = None) -> Seeds:
    """Sum up runs of the same cases that differ in their seed, or in their adapter's; rows are not pooled.

    Args:
        runs: their folders, two or more.
        judge: whose verdicts make the ASR; by default the most trusted that has judged.
    """
    return across_runs([Results.load(Path(run)) for run in runs], judge)


def compare(
    before: str | Path, after: str | Path, *, allow: Collection[str] = (), judge: str | None = None
) -> Comparison:
    """Compare two runs of the same cases, exit by exit, paired.

    Args:
        before: a run's folder.
        after: another's.
        allow: in what they may differ besides the model's weights: `cases`, `judges`, `encoder`, or a part of
            the identity, as `decoding`; recorded in the result.
        judge: whose verdicts make the ASR; by default the most trusted that has judged both wholly.

    Raises:
        LayeralignError: they differ in something else, or have no judged case in common.
    """
    return compare_runs(Results.load(Path(before)), Results.load(Path(after)), allow, judge)


def gate(
    run: str | Path,
    policy: str | Path | Mapping[str, Any],
    *,
    base: str | Path | None = None,
    judge_quality: str | Path | None = None,
) -> Gate:
    """Hold a run against a policy; see docs/gate.md.

    Args:
        run: its folder.
        policy: a YAML file, or what such a file would hold.
        base: another run's folder, of the same cases, for rules with `no_worse_than: base`.
        judge_quality: a file that says how good the judge is, which corrects the ASR; see docs/judges.md.

    Raises:
        LayeralignError: the policy is malformed, or the runs are not what it needs.
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
    """Tell which exit a model's config puts it at, and whether a run has shown that exit to be safe.

    Args:
        config: a `config.json`, a checkpoint folder, a hub id, or `testbed`; no weights are loaded.
        against: the run's folder.
        policy: what is safe, as in `gate`: its rules for that exit, an upper bound of the ASR among them.
        limit: instead of a policy, the highest ASR that is safe, 0.05 by default; nor may the exit be
            significantly worse than the default one.
        revision: of a hub id.
        adapter: the folder of the adapter that is deployed with the model.

    Raises:
        LayeralignError: there is no such config or run, or the policy is malformed.
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
    """Let judges judge the answers of a run; nothing is generated again.

    Args:
        run: its folder.
        names: of judges, `KIND` or `KIND:MODEL`; see docs/judges.md.
        endpoint: base URL of an OpenAI-compatible server that guards are asked of, or of one that speaks
            Perspective's language.
        again: forget what these judges said before; rules (oracle, refusal, vqa) always judge anew.
        retry_invalid: ask again about what they could not judge.
    """
    asked = judges(names, endpoint)
    with store.open_run(Path(run)) as opened:
        for one in asked:  # known as unfinished also if it is stopped while a model loads
            opened.ask_judge(one.name)
        for one in asked:
            anew = again or one.kind in RULES
            judge_run(opened, [one.load()], again=anew, retry_invalid=retry_invalid)
            release()  # before the next model is loaded
    return read(run)
