"""`compare`: two runs of the same cases, paired."""

from __future__ import annotations

import json as as_json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from layeralign._util.terminal import put, say
from layeralign._util.text import printable
from layeralign.cli.options import Format, Json, OptionalOut


def compare(
    before: Path,
    after: Path,
    *,
    allow: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    judge: str | None = None,
    format: Format = "table",
    json: Json = False,
    out: OptionalOut = None,
) -> None:
    """Compare two runs of the same cases, paired by case; what became worse comes first. See docs/runs.md.

    Parameters
    ----------
    before
        Folder of the first run.
    after
        Folder of the second run.
    allow
        What may differ besides the model's weights: cases, judges, encoder, or a part of the runs' identity,
        such as decoding. The comparison records it.
    judge
        Judge of the ASR; by default the most trusted judge that has judged both runs completely.
    format
        Tables, or JSON for scripts.
    json
        The same as --format json.
    out
        HTML file to write as well, such as change.html.
    """
    from layeralign.analysis.compare import compare as compare_runs
    from layeralign.analysis.results import Results
    from layeralign.report.terminal import comparison
    from layeralign.report.terminal import paper_table2 as table2

    runs = Results.load(before), Results.load(after)
    found = compare_runs(*runs, allow or (), judge)
    if out is not None:
        from layeralign.report.inputs import compared
        from layeralign.report.page import page

        notes = [("allowed", line) for line in comparison.differences(found)]
        page.write(compared(*runs, found), out, notes=notes)
    if json or format == "json":
        print(as_json.dumps(found.to_json(), indent=2, allow_nan=False))
        return
    put(comparison.table(found))
    say(*comparison.differences(found), *comparison.regressions(found))
    put(table2.table(found), keys=2)
    if said := table2.notes(found):
        say("; ".join(said) + ".")
    if out is not None:
        print(printable(f"page: {out}"))
