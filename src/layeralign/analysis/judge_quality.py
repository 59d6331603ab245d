"""How often a judge is right: read from a file, to correct the ASR that it measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layeralign._util.text import json_of
from layeralign.analysis.results import Results
from layeralign.errors import LayeralignError
from layeralign.stats.misclassification import Corrected, corrected


@dataclass(frozen=True)
class Quality:
    """How often a judge's verdict was the right one, of rows that it called safe or unsafe.

    Attributes:
        judge: its name, with its model's.
        sensitivity: share that it called unsafe of the unsafe rows.
        n_positive: how many these were.
        specificity: share that it called safe of the safe rows.
        n_negative: how many these were.
        effective_positive, effective_negative: as how many independent rows these count.
        source: where that was measured, in words.
    """

    judge: str
    sensitivity: float
    n_positive: int
    specificity: float
    n_negative: int
    effective_positive: float
    effective_negative: float
    source: str

    def correct(self, share: float, rows: float) -> Corrected:
        """The share that is unsafe where the judge called `share` of `rows` independent rows unsafe."""
        return corrected(
            share, rows, self.sensitivity, self.effective_positive, self.specificity, self.effective_negative
        )


def read_quality(file: Path, judge: str, run: Results) -> Quality:
    """A judge's quality from a file that `layeralign calibrate` or a person wrote.

    The file is one JSON object: the judge's full name -> `sensitivity`, `n_positive`, `specificity`,
    `n_negative`, and perhaps what else `layeralign.analysis.calibrate` writes.

    Args:
        file: the file.
        judge: whose.
        run: what it has judged. Where the file says what the judge was (files, revision, endpoint), it has to
            be the same.

    Raises:
        LayeralignError: the file cannot be read, says nothing or something impossible of the judge, or is of
            another one of that name, or of one that is no better than chance.
    """
    where = f"quality {file}"
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LayeralignError(f"{where}: cannot be read as UTF-8 text ({error})") from error
    found = json_of(text, where)
    if not isinstance(found, dict):
        raise LayeralignError(f"{where}: expected a JSON object with a field for each judge")
    if judge not in found:
        others = ", ".join(map(repr, found)) or "nothing"
        raise LayeralignError(f"{where}: has no entry for {judge!r}, the judge of the ASR; it has {others}")
    entry, where = found[judge], f"{where}: {judge}"
    if not isinstance(entry, dict):
        raise LayeralignError(f"{where}: expected a JSON object, found {type(entry).__name__}")
    if "record" in entry and entry["record"] != run.judge_records[judge]:
        raise LayeralignError(
            f"{where}: describes a different judge (other weights, revision or endpoint) than the judge "
            f"of run {run.path}; "
            "calibrate that judge"
        )
    source = entry.get("source", "")
    if not isinstance(source, str):
        raise LayeralignError(f"{where}: field 'source' is {source!r}; expected text")
    n_positive, n_negative = (_count(entry, name, where) for name in ("n_positive", "n_negative"))
    made = Quality(
        judge,
        _share(entry, "sensitivity", where),
        n_positive,
        _share(entry, "specificity", where),
        n_negative,
        _effective(entry, "effective_positive", n_positive, where),
        _effective(entry, "effective_negative", n_negative, where),
        source,
    )
    if made.sensitivity + made.specificity <= 1:
        raise LayeralignError(
            f"{where}: is no better than chance: sensitivity {made.sensitivity} and specificity "
            f"{made.specificity} have to add up to more than 1"
        )
    return made


def _number(entry: Mapping[str, Any], name: str, where: str, what: str) -> float:
    if name not in entry:
        raise LayeralignError(f"{where}: field {name!r} is missing; expected {what}")
    value = entry[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LayeralignError(f"{where}: field {name!r} is {value!r}; expected {what}")
    return value


def _share(entry: Mapping[str, Any], name: str, where: str) -> float:
    what = "a share from 0 to 1"
    value = _number(entry, name, where, what)
    if not 0 <= value <= 1:
        raise LayeralignError(f"{where}: field {name!r} is {value!r}; expected {what}")
    return value


def _count(entry: Mapping[str, Any], name: str, where: str) -> int:
    what = "how many rows, at least 1"
    value = _number(entry, name, where, what)
    if not isinstance(value, int) or value < 1:
        raise LayeralignError(f"{where}: field {name!r} is {value!r}; expected {what}")
    return value


def _effective(entry: Mapping[str, Any], name: str, n: int, where: str) -> float:
    if name not in entry:
        return n
    what = f"rows, above 0 and at most {n}"
    value = _number(entry, name, where, what)
    if not 0 < value <= n:
        raise LayeralignError(f"{where}: field {name!r} is {value!r}; expected {what}")
    return value
