"""`export`: the rows of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from layeralign._util.text import printable
from layeralign.cli.options import OptionalOut


def export(run: Path, *, format: Literal["jsonl", "parquet"] = "jsonl", out: OptionalOut = None) -> None:
    """Write a run's rows with answers and verdicts to a file that only you can read.

    Parameters
    ----------
    run
        Folder of the run.
    format
        One JSON object per line, or Parquet (needs layeralign[parquet]).
    out
        File to write; by default rows.jsonl or rows.parquet in the run's folder.
    """
    from layeralign.runs.export import export as write
    from layeralign.runs.opening import open_run

    file = out or run / f"rows.{format}"
    with open_run(run) as opened:
        n = write(opened, format, file)
    print(printable(f"{n} rows: {file}"))
