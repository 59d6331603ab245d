"""A run's rows as a table of pandas, Polars or `datasets`, which are optional dependencies."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layeralign.errors import LayeralignError
from layeralign.runs.export import flat_rows
from layeralign.runs.opening import open_run

if TYPE_CHECKING:
    import datasets
    import pandas
    import polars


def to_pandas(run: str | Path) -> pandas.DataFrame:
    """A run as a pandas table with one row per answer: case, exit, sample, prompt, answer and verdicts.

    Columns of judges are named `JUDGE.verdict`, `JUDGE.refused`, ... and `JUDGE.MEASURE`. Values that a judge
    did not give are missing (pandas' nullable types). Treat `answer` as untrusted text.

    Args:
        run: The run's folder.

    Raises:
        LayeralignError: There is no run, or pandas is not installed.
    """
    return library("pandas", "to_pandas").DataFrame(_rows(run)).convert_dtypes()


def to_polars(run: str | Path) -> polars.DataFrame:
    """A run as a Polars table; see `to_pandas`.

    Raises:
        LayeralignError: There is no run, or Polars is not installed.
    """
    made: polars.DataFrame = library("polars", "to_polars").DataFrame(_rows(run), infer_schema_length=None)
    return made


def to_datasets(run: str | Path) -> datasets.Dataset:
    """A run as a Hugging Face dataset; see `to_pandas`. Nothing is uploaded or cached.

    Raises:
        LayeralignError: There is no run, or `datasets` is not installed.
    """
    return library("datasets", "to_datasets").Dataset.from_list(_rows(run))


def library(name: str, function: str) -> Any:
    """Import an optional library for a function.

    Raises:
        LayeralignError: It is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise LayeralignError(
            f"{function}: needs {name}; pip install {name}, or layeralign[frames]"
        ) from error


def _rows(run: str | Path) -> list[dict[str, Any]]:
    with open_run(Path(run)) as opened:
        return list(flat_rows(opened))
