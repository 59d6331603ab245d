"""A file with the error rates of judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from layeralign._util.files import read_text
from layeralign._util.text import json_of
from layeralign._util.validation import Record, Share, Text, refused, validated
from layeralign.analysis.judging.judge_quality import Quality
from layeralign.analysis.results import Results
from layeralign.errors import LayeralignError

_MAX_BYTES = 32 * 2**20


def read_quality(file: Path, judge: str, run: Results) -> Quality:
    """Read a judge's quality from a file that `layeralign calibrate` or a person wrote.

    The file is one JSON object. It maps the judge's full name to `sensitivity`, `n_positive`, `specificity`,
    `n_negative`, and optionally the other fields of `layeralign.analysis.judging.calibrate`.

    Args:
        file: the file.
        judge: the judge's full name.
        run: a run with verdicts of the judge. If the file records the judge (files, revision, endpoint), the
            run's record must be the same.

    Raises:
        LayeralignError: the file cannot be read, has no entry or an impossible entry for the judge, describes
            a different judge of that name, or a judge that is no better than chance.
    """
    where = f"quality {file}"
    try:
        text = read_text(file, _MAX_BYTES)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise LayeralignError(f"{where}: cannot be read as UTF-8 text ({why})") from error
    found = json_of(text, where)
    if not isinstance(found, dict):
        raise LayeralignError(f"{where}: expected a JSON object with a field for each judge")
    if judge not in found:
        others = ", ".join(map(repr, found)) or "nothing"
        raise LayeralignError(f"{where}: has no entry for {judge!r}, the judge of the ASR; it has {others}")
    entry = validated(_Entry, found[judge], f"{where}: {judge}")
    where = f"{where}: {judge}"
    if "record" in entry.model_fields_set and entry.record != run.judge_records[judge]:
        raise LayeralignError(
            f"{where}: describes a different judge (other weights, revision or endpoint) than the judge of "
            f"run {run.path}; calibrate that judge"
        )
    if entry.sensitivity + entry.specificity <= 1:
        raise LayeralignError(
            f"{where}: is no better than chance: sensitivity {entry.sensitivity} and specificity "
            f"{entry.specificity} have to add up to more than 1"
        )
    return Quality(
        judge,
        entry.sensitivity,
        entry.n_positive,
        entry.specificity,
        entry.n_negative,
        entry.effective_positive or entry.n_positive,
        entry.effective_negative or entry.n_negative,
        entry.source,
    )


_MOST = 10**9
"""Most rows of a quality."""
_SHARE, _ROWS = "a share from 0 to 1", "how many rows, 1 to 1,000,000,000"


class _Entry(Record):
    """A judge's entry in a quality file; the other fields that `calibrate` writes are ignored."""

    model_config = ConfigDict(extra="ignore")

    sensitivity: Share = Field(description=_SHARE)
    n_positive: int = Field(ge=1, le=_MOST, description=_ROWS)
    specificity: Share = Field(description=_SHARE)
    n_negative: int = Field(ge=1, le=_MOST, description=_ROWS)
    effective_positive: float = Field(0.0, description="a number of rows")
    effective_negative: float = Field(0.0, description="a number of rows")
    source: Text = Field("", description="text")
    record: Any = None

    @field_validator("effective_positive", "effective_negative", mode="after")
    @classmethod
    def _at_most_all(cls, value: float, info: ValidationInfo) -> float:
        n = info.data.get(f"n_{str(info.field_name).partition('_')[2]}")
        if n is not None and not 0 < value <= n:
            raise refused(f"is {value:g}; expected rows, above 0 and at most {n}")
        return value
