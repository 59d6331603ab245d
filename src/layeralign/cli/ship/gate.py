"""`gate`: a run against a policy. Exit codes: 0 pass, 2 fail, 3 inconclusive, 1 error."""

from __future__ import annotations

import json as as_json
from pathlib import Path

from layeralign._util.terminal import put, say
from layeralign.cli.options import Format


def gate(
    run: Path,
    *,
    policy: Path,
    base: Path | None = None,
    judge_quality: Path | None = None,
    junit: Path | None = None,
    markdown: Path | None = None,
    format: Format = "table",
) -> int:
    """Check a run against a policy. Exit codes: 0 pass, 2 a rule failed, 3 inconclusive, 1 error.

    Parameters
    ----------
    run
        Folder of the run.
    policy
        YAML file of rules; see docs/gate.md.
    base
        Folder of another run of the same cases, for rules with no_worse_than: base.
    judge_quality
        File with the judge's error rates, as calibrate writes it: corrects the ASR for them.
    junit
        JUnit XML file to write, with one test per rule and exit.
    markdown
        Markdown file to write, with a summary.
    format
        Table, or JSON for scripts.
    """
    from layeralign._util import files
    from layeralign.analysis.results import Results
    from layeralign.gating import render
    from layeralign.gating.evaluate import gate as evaluate
    from layeralign.gating.policy import read

    rules, other = read(policy), None if base is None else Results.load(base)
    found = evaluate(Results.load(run), rules, other, judge_quality)
    if junit is not None:
        files.write(junit, render.junit(found))
    if markdown is not None:
        files.write(markdown, render.markdown(found))
    if format == "json":
        print(as_json.dumps(found.to_json(), indent=2, allow_nan=False))
        return found.exit_code
    if found.caution:
        say(found.caution)
    put(render.table(found), keys=2)
    say(*render.reasons(found), render.sentence(found))
    return found.exit_code
