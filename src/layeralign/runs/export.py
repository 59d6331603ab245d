"""Export of a run's rows to JSONL and Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from layeralign._util.files import atomic, json_line
from layeralign.errors import LayeralignError
from layeralign.runs.store import SAID, Run

Format = Literal["jsonl", "parquet"]


def export(run: Run, format: Format, out: Path) -> int:
    """Write every row (case, exit, answer, verdicts ...) to `out`; returns the number of rows.

    The file is written atomically and readable by its owner only, since it contains answers.

    Raises:
        LayeralignError: `format` is parquet, and pyarrow is not installed.
    """
    rows = list(run.rows())
    with atomic(out, private=True) as draft:
        if format == "jsonl":
            with draft.open("w", encoding="utf-8") as stream:
                stream.writelines(map(json_line, rows))
        else:
            _parquet(rows, draft)
    return len(rows)


def _parquet(rows: list[dict[str, Any]], file: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise LayeralignError("format parquet: needs pyarrow; install layeralign[parquet]") from error
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(flat(rows)), file)


def flat(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `Run.rows` with each judge's verdict and scores in columns of their own."""
    judges = sorted({judge for row in rows for judge in row["verdicts"]})
    columns = [(judge, name) for judge in judges for name in SAID if name != "scores"]
    scored = sorted(
        {(j, name) for row in rows for j, verdict in row["verdicts"].items() for name in verdict["scores"]}
    )
    return [
        {k: v for k, v in row.items() if k != "verdicts"}
        | {f"{judge}.{name}": row["verdicts"].get(judge, {}).get(name) for judge, name in columns}
        | {f"{j}.{name}": row["verdicts"].get(j, {}).get("scores", {}).get(name) for j, name in scored}
        for row in rows
    ]
