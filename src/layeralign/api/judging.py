"""Functions that judge the answers of runs and summarise them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from layeralign._util import files
from layeralign.analysis.judging.calibrate import calibrate as measure
from layeralign.analysis.results import Results
from layeralign.analysis.seeds import across as across_runs
from layeralign.analysis.summary import summarise
from layeralign.errors import LayeralignError
from layeralign.judges import labels
from layeralign.judges.kinds import LLM, PERSPECTIVE, RULES
from layeralign.judges.registry import judges
from layeralign.report.notebook.others import Calibrations
from layeralign.report.notebook.runs import Scan, Seeds
from layeralign.report.notebook.shown import shown
from layeralign.runs import opening
from layeralign.runs.opening import Folder
from layeralign.sweep.cluster import pooled
from layeralign.sweep.pool import Cluster
from layeralign.sweep.sweep import judge as judge_run
from layeralign.vlm.load import release

_HERE = (*RULES, LLM, PERSPECTIVE)
"""Kinds of judges that need no worker of a cluster."""


def read(run: Folder, judge: str | None = None, judge_quality: str | Path | None = None) -> Scan:
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


def across(runs: Sequence[Folder], judge: str | None = None) -> Seeds:
    """Summarise runs of the same cases that differ in seed or adapter, without pooling their rows.

    Args:
        runs: the folders of two or more runs.
        judge: the judge whose verdicts make the ASR; by default the most trusted judge that has judged every
            harmful answer of all runs.
    """
    read_once = [Results.load(Path(run)) for run in runs]
    found = across_runs(read_once, judge)
    return shown(Seeds, found, _runs=list(zip(read_once, found.summaries, strict=True)))


def summary(*runs: Folder, judge: str | None = None, judge_quality: str | Path | None = None) -> Scan | Seeds:
    """Summarise a run as `read`, or several runs of the same cases as `across`.

    Args:
        runs: the folders of one or more runs.
        judge: the judge whose verdicts make the ASR; by default the most trusted judge.
        judge_quality: for one run, a file with that judge's error rates.

    Raises:
        LayeralignError: there is no run, or the runs cannot be summarised together.
    """
    if len(runs) == 1:
        return read(runs[0], judge, judge_quality)
    if judge_quality is not None:
        raise LayeralignError("summary: judge_quality corrects the ASR of one run, got several runs")
    return across(runs, judge)


def judge(
    run: Folder,
    names: Sequence[str] = RULES,
    *,
    endpoint: str | None = None,
    rubric: str | Path | None = None,
    again: bool = False,
    retry_invalid: bool = False,
    ray: str | None = None,
    workers: int | None = None,
    gpus_per_worker: float = 0.0,
) -> Scan:
    """Let judges judge the answers of a run; no answer is generated again.

    Args:
        run: the run's folder.
        names: names of judges, `KIND` or `KIND:MODEL`; see docs/judges.md. By default the rules.
        endpoint: base URL of an OpenAI-compatible server that hosts the guards, or of a server with
            Perspective's API.
        rubric: how the judge `llm:MODEL` asks: `graded`, `yes-no`, or a YAML file; see docs/judges.md.
        again: discard earlier verdicts of these judges; rules (oracle, topic, refusal, vqa) always judge
            again.
        retry_invalid: repeat rows with an invalid verdict.
        ray: a Ray cluster whose workers judge: `auto`, `local` or an address; see docs/cluster.md. Rules
            and judges on a server judge in this process.
        workers: number of workers; by default one per node, or with `gpus_per_worker` one per GPU share.
        gpus_per_worker: GPUs of each worker, 0 for none.
    """
    asked = judges(names, endpoint, rubric)
    cluster = Cluster.of(ray, workers, gpus_per_worker)
    if cluster and endpoint:
        raise LayeralignError("judge: a server judges at the endpoint; remove ray")
    with opening.open_run(Path(run), write=True) as opened:
        for one in asked:  # recorded as unfinished even if a stop occurs while a model loads
            opened.ask_judge(one.name)
        for one in asked:
            anew = again or one.kind in RULES
            with pooled(cluster, one.name) if cluster and one.kind not in _HERE else nullcontext() as there:
                judge_run(opened, [there or one.load()], again=anew, retry_invalid=retry_invalid)
            release()  # before the next model is loaded
        silent = [one.name for one in asked if one.name not in opened.judges()]
    if silent and tuple(names) != RULES:
        raise LayeralignError(
            f"run {run}: has no answer that {' or '.join(silent)} can judge; oracle and topic judge only a "
            "testbed's cases, and vqa picture questions"
        )
    return read(run)


def label(
    run: Folder,
    *,
    out: str | Path | None = None,
    n: int = 200,
    seed: int = 0,
    filled: str | Path | None = None,
) -> dict[str, int]:
    """Write answers to a file for people to label, or import their labels; see docs/judges.md.

    Args:
        run: the run's folder.
        out: a JSONL file to write, readable by you alone.
        n: number of answers, drawn at random from the answers to harmful cases.
        seed: seed of the draw.
        filled: a file with labels; they replace the verdicts of the judge `human`.

    Returns:
        The number of answers by label; the empty label counts the answers to label.

    Raises:
        LayeralignError: both or none of `out` and `filled` are given, or a file is invalid.
    """
    if (out is None) == (filled is None):
        raise LayeralignError("label: expected either out, a file to write, or filled, a file with labels")
    with opening.open_run(Path(run), write=filled is not None) as opened:
        if filled is not None:
            return dict(labels.adopt(opened, Path(filled)))
        return {"": labels.write(opened, Path(str(out)), n, seed)}


def calibrate(*runs: Folder, judge: str | Sequence[str], out: str | Path) -> Calibrations:
    """Measure the error rates of judges against people's labels, for `judge_quality` elsewhere.

    Args:
        runs: the folders of labelled runs; their rows are pooled.
        judge: the judges to measure, by name or kind.
        out: a JSON file to write.

    Raises:
        LayeralignError: no run is given, or a run lacks labels or verdicts of the judge.
    """
    if not runs:
        raise LayeralignError("calibrate: expected the folder of a labelled run (see label)")
    results = [Results.load(Path(run)) for run in runs]
    found = [measure(results, name) for name in ([judge] if isinstance(judge, str) else judge)]
    files.write_json(Path(out), {one.judge: one.to_json() for one in found}, private=True)
    return Calibrations(found)
