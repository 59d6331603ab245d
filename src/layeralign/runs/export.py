"""Export of a run's rows to JSONL and Parquet; one part of the rows at a time is in memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from layeralign._util.files import atomic
from layeralign._util.text import json_line
from layeralign.errors import LayeralignError
from layeralign.runs.store import SAID, Run
from layeralign.runs.verified import note_incomplete

Format = Literal["jsonl", "parquet"]
_AT_ONCE = 10_000
_TYPES = {"exit": "int64", "sample": "int64", "tokens": "int64"}
_SAID_TYPES = {"verdict": "string", "refused": "bool", "coherent": "bool", "correct": "float64"}


def export(run: Run, format: Format, out: Path) -> int:
    """Write every row (case, exit, answer, verdicts ...) to `out`; returns the number of rows.

    The file is written atomically and readable by its owner only, since it contains answers.

    Raises:
        LayeralignError: `format` is parquet, and pyarrow is not installed.
    """
    note_incomplete(run)
    with atomic(out, private=True) as draft:
        return _jsonl(run, draft) if format == "jsonl" else _parquet(run, draft)


def _jsonl(run: Run, file: Path) -> int:
    rows = 0
    with file.open("w", encoding="utf-8") as stream:
        for row in run.rows():
            stream.write(json_line(row))
            rows += 1
    return rows


def _parquet(run: Run, file: Path) -> int:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise LayeralignError("format parquet: needs pyarrow; install layeralign[parquet]") from error
    flat, rows = flat_rows(run), 0
    first = list(islice(flat, _AT_ONCE))
    types = _types(run)
    schema = pyarrow.schema([(name, types.get(name, "string")) for name in (first[0] if first else {})])
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        part = first
        while part:
            writer.write_table(pyarrow.Table.from_pylist(part, schema))
            rows += len(part)
            part = list(islice(flat, _AT_ONCE))
    return rows


def _types(run: Run) -> dict[str, str]:
    """Return the Arrow type of each column that is not text."""
    said = {f"{judge}.{name}": type for judge in run.judges() for name, type in _SAID_TYPES.items()}
    return _TYPES | said | {f"{judge}.{measure}": "float64" for judge, measure in run.measures()}


def flat_rows(run: Run) -> Iterator[dict[str, Any]]:
    """Yield the rows of a run with each judge's verdict and scores in columns of their own."""
    said = [(judge, name) for judge in run.judges() for name in SAID if name != "scores"]
    scored = run.measures()
    for row in run.rows():
        verdicts = row.pop("verdicts")
        row |= {f"{judge}.{name}": verdicts.get(judge, {}).get(name) for judge, name in said}
        row |= {
            f"{judge}.{name}": verdicts.get(judge, {}).get("scores", {}).get(name) for judge, name in scored
        }
        yield row
