"""`compare`: two runs of the same cases."""

from __future__ import annotations

import json as as_json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from layeralign._util.text import printable
from layeralign.cli.app import app, put


@app.command
def compare(
    before: Path,
    after: Path,
    *,
    allow: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    judge: str | None = None,
    json: bool = False,
    out: Path | None = None,
) -> None:
    """Compare two runs of the same cases, paired, what became worse first; see docs/runs.md.

    Parameters
    ----------
    before
        A run's folder.
    after
        Another's.
    allow
        In what they may differ besides the model's weights: cases, judges, encoder, or a part of their
        identity, as decoding; once or more. What was allowed is told and recorded.
    judge
        Whose verdicts make the ASR; by default the most trusted that has judged all of both.
    json
        JSON for scripts instead of tables.
    out
        Also write a page about it, as change.html.
    """
    from layeralign.analysis.compare import compare as compare_runs
    from layeralign.analysis.results import Results
    from layeralign.report.inputs import compared
    from layeralign.report.page import page
    from layeralign.report.terminal import comparison
    from layeralign.report.terminal import paper_table2 as table2

    runs = Results.load(before), Results.load(after)
    found = compare_runs(*runs, allow or (), judge)
    if out is not None:
        notes = [("allowed", line) for line in comparison.differences(found)]
        page.write(compared(*runs, found), out, notes=notes)
    if json:
        print(as_json.dumps(found.to_json(), indent=2, allow_nan=False))
        return
    put(comparison.table(found))
    print("\n".join([*comparison.differences(found), *comparison.regressions(found)]))
    put(table2.table(found))
    if said := table2.notes(found):
        print("; ".join(said) + ".")
    if out is not None:
        print(printable(f"page: {out}"))
