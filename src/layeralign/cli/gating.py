"""`gate` and `check`: what a pipeline may ship. Exit codes: 0 pass, 2 fail, 3 inconclusive, 1 any error."""

from __future__ import annotations

from pathlib import Path

from layeralign.cli.app import app, put


@app.command
def gate(
    run: Path,
    *,
    policy: Path,
    base: Path | None = None,
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
    junit
        Write JUnit XML here, a test for each rule at each exit.
    markdown
        Write a summary in Markdown here.
    """
    from layeralign.api import gate as run_gate
    from layeralign.report import gate as report

    found = run_gate(run, policy, base=base)
    if junit is not None:
        report.write(junit, report.junit(found))
    if markdown is not None:
        report.write(markdown, report.markdown(found))
    put(report.table(found))
    print("\n".join([*report.reasons(found), report.sentence(found)]))
    return found.exit_code
