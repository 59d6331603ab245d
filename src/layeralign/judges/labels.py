"""Human labels: a sample of a run's answers to label, and the import of labels as the judge `human`."""

from __future__ import annotations

import hashlib
import json
import random
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from layeralign._util.files import atomic, read_given
from layeralign._util.text import json_of, lines_of
from layeralign._util.validation import Record, Text, validated
from layeralign.errors import LayeralignError
from layeralign.judges.judge import Judgement
from layeralign.judges.kinds import HUMAN
from layeralign.runs.store import RowKey, Run
from layeralign.runs.verified import note_incomplete

LABELS = {
    "safe": Judgement("safe"),
    "unsafe": Judgement("unsafe"),
    "unclear": Judgement("invalid", why="labelled as unclear"),
}
"""Label -> its verdict."""

MAX_BYTES = 256 * 2**20
"""Largest file of labels, in bytes."""
_ASKED = ("case", "exit", "sample", "image", "image_sha256", "prompt", "answer")
"""Fields of a row in the sample; no judge's verdict is among them."""


def sample(run: Run, n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Draw answers to harmful cases, without controls, in random order.

    No case has a second row before every case has one. If all cases have equally many rows, each row is
    equally likely, also in every prefix of the sample: the sample represents all of the run's harmful rows
    and exits. The draw ignores verdicts, since a sample drawn by a judge's verdicts would bias that judge's
    sensitivity.

    Args:
        run: An open run.
        n: Number of rows, at least 1; all rows if there are fewer.
        seed: Seed of the draw.

    Returns:
        One object per row: case, exit, sample, image (the picture's path), image_sha256, prompt, answer, and
        `label` None.

    Raises:
        LayeralignError: The run has no answers to harmful cases, or `n` is below 1.
    """
    if n < 1:
        raise LayeralignError(f"n {n}: expected at least 1")
    rows = list(_labelled(run).values())
    if not rows:
        raise LayeralignError(
            f"run {run.path}: has no answers to harmful cases to label; scan a file with harmful cases"
        )
    random.Random(seed).shuffle(rows)
    turns: Counter[str] = Counter()
    ranked = []
    for row in rows:
        ranked.append((turns[row["case"]], row))
        turns[row["case"]] += 1
    drawn = [row for _, row in sorted(ranked, key=lambda one: one[0])[:n]]
    return [{name: row[name] for name in _ASKED} | {"label": None} for row in drawn]


def _labelled(run: Run) -> dict[RowKey, dict[str, Any]]:
    """The rows that can be labelled: answers to harmful cases that are not controls."""
    pictures = {case: sha256 for case, _, sha256 in run.pictures()}
    rows = (row for row in run.rows() if row["kind"] == "harmful" and not row["control"])
    return {
        (row["case"], row["exit"], row["sample"]): row | {"image_sha256": pictures.get(row["case"])}
        for row in rows
    }


def write(run: Run, out: Path, n: int, seed: int = 0) -> int:
    """Write a sample as JSONL, one object with `label` null per line.

    Control, bidirectional and other invisible characters are escaped. The file is written atomically and
    readable by its owner only.

    Returns:
        The number of rows.

    Raises:
        LayeralignError: See `sample`; or the file exists and may contain labels.
    """
    if out.is_file():
        raise LayeralignError(f"out {out}: already exists and may contain labels; expected a new file")
    note_incomplete(run)
    rows = sample(run, n, seed)
    with atomic(out, private=True) as draft, draft.open("w", encoding="utf-8") as stream:
        stream.writelines(_inert(json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
    return len(rows)


def _inert(line: str) -> str:
    r"""Replace invisible characters (control, format, separators) in a JSON line by `\\u` escapes."""
    unseen = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(json.dumps(c)[1:-1] if unicodedata.category(c) in unseen else c for c in line)


def adopt(run: Run, file: Path) -> Counter[str]:
    """Import a file's labels as verdicts of `human`, replacing all earlier labels atomically.

    Returns:
        Label -> count; `""` counts the lines without a label.

    Raises:
        LayeralignError: The file is invalid; the message names the file, the line and the field.
    """
    content = read_given(file, MAX_BYTES, "labels")
    rows = _labelled(run)
    found: dict[RowKey, str | None] = {}
    for number, line in lines_of(content, f"labels {file}", "\n"):
        where = f"{file}:{number}"
        given = validated(_Line, json_of(line, where), where)
        key = given.case, given.exit, given.sample
        if key not in rows:
            raise LayeralignError(
                f"{where}: case {key[0]!r}, exit {key[1]}, sample {key[2]} is not an answer to a harmful "
                f"case in run {run.path}; expected a file that label --out wrote for this run"
            )
        for name in ("prompt", "answer", "image_sha256"):
            if name in given.model_fields_set and getattr(given, name) != rows[key][name]:
                raise LayeralignError(
                    f"{where}: field {name!r} differs from run {run.path}; change only the field 'label'"
                )
        if key in found:
            raise LayeralignError(
                f"{where}: case {key[0]!r}, exit {key[1]}, sample {key[2]} appears twice; remove one line"
            )
        found[key] = given.label
    verdicts = [(key, LABELS[label]) for key, label in found.items() if label is not None]
    if not verdicts:
        raise LayeralignError(f"labels {file}: has no labels; expected one of {', '.join(LABELS)} per line")
    run.replace(HUMAN, {"labels": hashlib.sha256(content).hexdigest()}, verdicts)
    return Counter(label or "" for label in found.values())


class _Line(Record):
    """A line of a file with labels; what else `write` put there is ignored."""

    model_config = ConfigDict(extra="ignore")

    case: Text = Field(description="text")
    exit: int = Field(description="a whole number")
    sample: int = Field(description="a whole number")
    prompt: Text = Field(description="text")
    answer: Text = Field(description="text")
    image_sha256: Text | None = Field(None, description="text, or null")
    """Missing in files of earlier versions."""
    label: Literal["safe", "unsafe", "unclear"] | None = Field(description=f"{', '.join(LABELS)}, or null")
