"""Functions that report runs and decide what may be shipped."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from layeralign import benchmarks
from layeralign.analysis.compare import compare as compare_runs
from layeralign.analysis.results import Results
from layeralign.errors import LayeralignError
from layeralign.gating.deployed import check as check_config
from layeralign.gating.endpoint import check as check_endpoint
from layeralign.gating.evaluate import gate as gate_run
from layeralign.gating.fleet import Fleet as Servers
from layeralign.gating.fleet import check_fleet
from layeralign.gating.policy import read as read_policy
from layeralign.report import What
from layeralign.report import card as cards
from layeralign.report.inputs import compared, gather
from layeralign.report.notebook.runs import Comparison, Deployed, Fleet, Gate
from layeralign.report.notebook.shown import shown
from layeralign.report.page import page
from layeralign.report.terminal.comparison import differences
from layeralign.runs.export import Format
from layeralign.runs.export import export as write_rows
from layeralign.runs.opening import Folder, open_run
from layeralign.runs.verified import verified
from layeralign.vlm.load import load
from layeralign.vlm.vlm import Vlm
from layeralign.watching import ALPHA, Watch, learn

if TYPE_CHECKING:
    from layeralign.cases.rows import Rows


def report(
    *runs: Folder,
    out: str | Path,
    judge: str | None = None,
    judge_quality: str | Path | None = None,
    with_answers: bool = False,
) -> Path:
    """Write one self-contained HTML page about a run, or about several runs side by side.

    Args:
        runs: the folders of the runs; the others are compared with the first.
        out: the page, such as report.html.
        judge: the judge whose verdicts make the ASR; by default the most trusted judge.
        judge_quality: a file with that judge's error rates: adds the corrected ASR.
        with_answers: include prompts and answers, hidden until the reader shows them.

    Returns:
        `out`.

    Raises:
        LayeralignError: there is no run, or a run has no verdicts.
    """
    quality = None if judge_quality is None else Path(judge_quality)
    found = gather([Path(run) for run in runs], judge, quality)
    page.write(found, Path(out), with_answers=with_answers)
    return Path(out)


def figure(
    *runs: Folder,
    what: What = "curve",
    out: str | Path,
    columns: int = 1,
    judge: str | None = None,
) -> Path:
    """Write the numbers of one of the page's charts as CSV, or draw the curve or the trade-off.

    Args:
        runs: the folders of the runs, as in `report`.
        what: the chart: curve, tradeoff, and as CSV also categories, controls, changes and training.
        out: the file: .csv for the numbers, .svg, .pdf or .png for the drawing.
        columns: the width in columns of a paper: 1 (3.25 inches) or 2 (6.75 inches).
        judge: the judge whose verdicts make the ASR; by default the most trusted judge.

    Returns:
        `out`.

    Raises:
        LayeralignError: the runs lack the data of the chart, or the file ends differently.
    """
    from layeralign.report.charts.figure import write

    write(gather([Path(run) for run in runs], judge), what, Path(out), columns)
    return Path(out)


def compare(
    before: Folder,
    after: Folder,
    *,
    allow: Collection[str] = (),
    judge: str | None = None,
    out: str | Path | None = None,
) -> Comparison:
    """Compare two runs of the same cases, exit by exit, paired by case.

    Args:
        before: the folder of the run before the change.
        after: the folder of the run after the change.
        allow: allowed differences besides the model's weights: `cases`, `judges`, `encoder`, or a key of the
            identity, such as `decoding`. The result records them.
        judge: the judge whose verdicts make the ASR; by default the most trusted judge that has judged every
            harmful answer of both runs.
        out: an HTML page to write as well.

    Raises:
        LayeralignError: the runs differ in something else, or have no judged case in common.
    """
    runs = Results.load(Path(before)), Results.load(Path(after))
    found = compare_runs(*runs, allow, judge)
    if out is not None:
        notes = [("allowed", line) for line in differences(found)]
        page.write(compared(*runs, found), Path(out), notes=notes)
    return shown(Comparison, found, _runs=list(zip(runs, (found.before, found.after), strict=True)))


def gate(
    run: Folder,
    policy: str | Path | Mapping[str, Any],
    *,
    base: Folder | None = None,
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
    found = Results.load(Path(run))
    made = gate_run(found, rules, other, quality)
    drawn = [(found, made.judge), *([] if other is None else [(other, None)])]
    return shown(Gate, made, _runs=drawn)


def check(
    config: str | Path | None = None,
    against: Folder | None = None,
    *,
    policy: str | Path | Mapping[str, Any] | None = None,
    limit: float | None = None,
    revision: str | None = None,
    adapter: str | Path | None = None,
    hf_overrides: str | Mapping[str, Any] | None = None,
    runtime: str | None = None,
    endpoint: str | None = None,
    fleet: str | Path | None = None,
) -> Deployed | Fleet:
    """Determine the exit at which a model is deployed, and whether a run has shown it to be safe.

    Args:
        config: a `config.json`, a checkpoint folder, a hub id, `testbed`, a vision file for llama.cpp and
            Ollama (`mmproj-*.gguf`), or a file that says how servers are started; see docs/gate.md. No
            weights are loaded.
        against: the run's folder.
        policy: the definition of safe, as in `gate`. One of its rules for the exit must be an upper bound of
            the ASR.
        limit: without a policy, the highest safe ASR, 0.05 by default. The exit must also not be
            significantly worse than the default exit.
        revision: the revision of a hub id.
        adapter: the folder of the adapter that is deployed with the model.
        hf_overrides: fields of the config that a server changes, as by vLLM's `--hf-overrides`; JSON.
        runtime: the runtime, with its version: `llama.cpp@b10488`.
        endpoint: `MODEL@URL` of a running server; see `layeralign.gating.endpoint`. A config is then the
            scanned model, which is loaded to compare log-probabilities, too.
        fleet: instead of all others, a YAML file with a list of targets, each with its run.

    Returns:
        The result of the only server, or a fleet of several.

    Raises:
        LayeralignError: the config or the run does not exist, or the policy is invalid.
    """
    if fleet is not None:
        others = (config, against, policy, limit, revision, adapter, hf_overrides, runtime, endpoint)
        if any(one is not None for one in others):
            raise LayeralignError("fleet: does not go with other arguments; give them in the file")
        return shown(Fleet, check_fleet(Path(fleet)))
    if against is None or (config is None and endpoint is None):
        raise LayeralignError("check: expected a config or endpoint, and against, the run's folder; or fleet")
    rules = None if policy is None else read_policy(policy)
    run = Results.load(Path(against))
    if config is None or endpoint is not None:
        if hf_overrides is not None or runtime is not None:
            raise LayeralignError("endpoint: does not go with hf_overrides and runtime")
        held, _ = check_endpoint(
            str(endpoint), run, policy=rules, limit=limit, model=config, revision=revision, adapter=adapter
        )
        return shown(Deployed, held, _runs=[(run, None)])
    made = check_config(
        config, run, policy=rules, limit=limit, revision=revision, adapter=adapter, hf_overrides=hf_overrides,
        runtime=runtime,
    )  # fmt: skip
    if len(made) > 1:
        return shown(Fleet, Servers(made))
    return shown(Deployed, made[0], _runs=[(run, None)])


def card(run: Folder, *, format: Literal["markdown", "yaml"] = "markdown", judge: str | None = None) -> str:
    """Return a section about a run for a model card on the hub; it holds no answers.

    Args:
        run: the run's folder.
        format: `markdown`, or `yaml` for the hub's model-index.
        judge: the judge whose verdicts make the ASR; by default the most trusted judge.

    Raises:
        LayeralignError: the format is unknown, or the run has no verdicts.
    """
    if format not in ("markdown", "yaml"):
        raise LayeralignError(f"format {format}: expected markdown or yaml")
    found = gather([Path(run)], judge)
    return cards.metadata(found) if format == "yaml" else cards.card(found)


def export(run: Folder, *, format: Format = "jsonl", out: str | Path | None = None) -> Path:
    """Write a run's rows with answers and verdicts to a file that only you can read.

    `to_pandas`, `to_polars` and `to_datasets` return the same rows.

    Args:
        run: the run's folder.
        format: `jsonl`, or `parquet`, which needs layeralign[parquet].
        out: the file; by default rows.jsonl or rows.parquet in the run's folder.

    Returns:
        The file.

    Raises:
        LayeralignError: there is no run, or the format is unknown or needs a missing library.
    """
    if format not in ("jsonl", "parquet"):
        raise LayeralignError(f"format {format}: expected jsonl or parquet")
    file = Path(run) / f"rows.{format}" if out is None else Path(out)
    with open_run(Path(run)) as opened:
        write_rows(opened, format, file)
    return file


def verify(run: Folder) -> str:
    """Check that a run is as its last command left it (`layeralign verify`); see docs/runs.md.

    Args:
        run: the run's folder.

    Returns:
        One sentence about what the run holds.

    Raises:
        LayeralignError: the run is damaged, or its last command was killed or still works.
    """
    return verified(Path(run))


def watch(
    model: Vlm | str | Path,
    cases: str | Path | Rows,
    out: str | Path,
    *,
    exit: int | str = "default",
    alpha: float = ALPHA,
    limit: int | None = None,
    adapter: str | Path | None = None,
) -> Watch:
    """Learn what a picture's features look like at the approved exit, for a running system.

    Args:
        model: from `load`, or an argument of `load`.
        cases: cases as in `scan`, whose pictures are like those that the model gets.
        out: the file to write, such as watch.safetensors.
        exit: the approved exit: `default`, or its number or name.
        alpha: the largest share of usual pictures that may be reported, 0 to 1.
        limit: the largest number of cases.
        adapter: the adapter of a model that is not loaded yet, as in `load`.

    Returns:
        The watch: `usual(features)` of a picture's projected features [tokens, width], `score(features)`.

    Raises:
        LayeralignError: `exit` is not one exit, or there are too few different pictures for `alpha`.
    """
    vlm = model if isinstance(model, Vlm) else load(model, adapter=adapter)
    exits = vlm.exits.parse(str(exit))
    if len(exits) != 1:
        raise LayeralignError(f"exit {exit}: names {len(exits)} exits; expected one, such as default")
    made = learn(vlm, benchmarks.cases(cases, limit=limit), exits[0], alpha)
    made.save(Path(out))
    return made
