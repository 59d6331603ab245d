"""`gate` and `check`: what a pipeline may ship. Exit codes: 0 pass, 2 fail, 3 inconclusive, 1 any error."""

from __future__ import annotations

from pathlib import Path

from layeralign._util.text import printable
from layeralign.cli.app import app, put


@app.command
def gate(
    run: Path,
    *,
    policy: Path,
    base: Path | None = None,
    judge_quality: Path | None = None,
    junit: Path | None = None,
    markdown: Path | None = None,
) -> int:
    """Hold a run against a policy; exit code 0 pass, 2 a rule failed, 3 inconclusive, 1 any error.

    Parameters
    ----------
    run
        The run's folder.
    policy
        A YAML file of rules; see docs/gate.md.
    base
        Another run's folder, of the same cases, for rules with no_worse_than: base.
    judge_quality
        A file that says how good the judge is, as calibrate writes it: limits of the ASR are held without its
        errors.
    junit
        Write JUnit XML here, a test for each rule at each exit.
    markdown
        Write a summary in Markdown here.
    """
    from layeralign._util import files
    from layeralign.api import gate as run_gate
    from layeralign.gating import render as report

    found = run_gate(run, policy, base=base, judge_quality=judge_quality)
    if junit is not None:
        files.write(junit, report.junit(found))
    if markdown is not None:
        files.write(markdown, report.markdown(found))
    put(report.table(found))
    print("\n".join([*report.reasons(found), report.sentence(found)]))
    return found.exit_code


@app.command
def check(
    config: str,
    *,
    against: Path,
    policy: Path | None = None,
    limit: float | None = None,
    revision: str | None = None,
    adapter: Path | None = None,
) -> int:
    """Tell from a model's config which exit it runs at, and whether a run has shown that exit to be safe.

    Exit code 0 it has, 2 it has shown the opposite, 3 that cannot be told, 1 any error.

    Parameters
    ----------
    config
        A config.json, a checkpoint folder, a hub id, or testbed; no weights are loaded. Here `--config`
        names it, too, not a YAML file of flags.
    against
        The run's folder.
    policy
        A YAML file, whose rules for that exit say what is safe, an upper bound of the asr among them; those
        with no_worse_than are left to gate.
    limit
        Without a policy, the highest ASR that is safe, 0.05 by default; nor may the exit be significantly
        worse than the default one.
    revision
        Branch, tag or commit of a hub id.
    adapter
        Folder of the LoRA adapter that is deployed with the model.
    """
    from layeralign.api import check as run_check
    from layeralign.gating import render as report

    found = run_check(config, against, policy=policy, limit=limit, revision=revision, adapter=adapter)
    if found.gate is not None:
        put(report.table(found.gate))
    print(printable(report.deployed(found)))
    return found.exit_code
