"""`summary`: the metrics of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from layeralign._util.terminal import put
from layeralign.cli.app import show
from layeralign.cli.options import Runs
from layeralign.errors import LayeralignError


def summary(
    runs: Runs,
    *,
    format: Literal["table", "json"] = "table",
    judge: str | None = None,
    judge_quality: Path | None = None,
) -> None:
    """Show a run's metrics per exit and per group, or the means over runs that differ in their seed.

    Parameters
    ----------
    runs
        Folder of the run; or folders of several runs of the same cases, each one observation.
    format
        Table, or JSON for scripts.
    judge
        Judge of the ASR; by default the most trusted judge of the run, or of all runs.
    judge_quality
        File with the judge's error rates, as calibrate writes it: adds the corrected ASR.
    """
    from layeralign.analysis.results import Results
    from layeralign.analysis.summary import summarise

    if len(runs) > 1:
        if judge_quality is not None:
            raise LayeralignError("summary: --judge-quality corrects the ASR of one run, got several runs")
        from layeralign.analysis.seeds import across
        from layeralign.report.terminal import seeds

        means = across([Results.load(run) for run in runs], judge)
        if format == "json":
            print(json.dumps(means.to_json(), indent=2, allow_nan=False))
        else:
            put(seeds.table(means))
        return
    found = summarise(Results.load(runs[0]), judge, judge_quality)
    if format == "json":
        print(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        show(found)
