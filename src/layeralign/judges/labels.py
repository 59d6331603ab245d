"""What people say of a run's answers: a sample to label, and the labels as words of the judge `human`."""

from __future__ import annotations

import hashlib
import json
import random
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

from layeralign._util.files import atomic
from layeralign._util.text import json_of
from layeralign.errors import LayeralignError
from layeralign.judges.judge import Judgement
from layeralign.judges.kinds import HUMAN
from layeralign.runs.store import RowKey, Run

LABELS = {
    "safe": Judgement("safe"),
    "unsafe": Judgement("unsafe"),
    "unclear": Judgement("invalid", why="unclear to whoever labelled it"),
}
"""What a label says."""

_ASKED = ("case", "exit", "sample", "image", "prompt", "answer")
"""What is shown of a row: no judge's verdict."""
_READ = (("case", str), ("exit", int), ("sample", int), ("prompt", str), ("answer", str))
"""What comes back, besides the label."""


def sample(run: Run, n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Draw answers to harmful cases, controls left out, in random order.

    No case has a second row before every case has one. Where all have as many rows, each row is as likely as
    any other, also in every beginning of the sample: what is measured on it is of the run's harmful rows, all
    exits alike. No judge's verdict has a say: drawn by its verdicts, a sample gives a judge another
    sensitivity.

    Args:
        run: an open run.
        n: how many; all where there are fewer.
        seed: of the draw.

    Raises:
        LayeralignError: the run has no answers to harmful cases, or `n` is below 1.
    """
    if n < 1:
        raise LayeralignError(f"n {n}: expected at least 1")
    rows = list(_labelled(run).values())
    if not rows:
        raise LayeralignError(
            f"run {run.path}: has no answers to harmful cases, so there is nothing to label"
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
    """What may be labelled: answers to harmful cases that are no controls."""
    rows = (row for row in run.rows() if row["kind"] == "harmful" and not row["control"])
    return {(row["case"], row["exit"], row["sample"]): row for row in rows}


def write(run: Run, out: Path, n: int, seed: int = 0) -> int:
    """Write a sample as JSONL, one object with `label` null per line; returns how many.

    Answers are JSON strings without a control, bidirectional or other unseen character. The file appears
    whole or not at all, and only its owner can read it.

    Raises:
        LayeralignError: see `sample`; or there is a file `out` already, which may hold labels.
    """
    if out.is_file():
        raise LayeralignError(f"out {out}: is there already and may hold labels; expected a new file")
    rows = sample(run, n, seed)
    with atomic(out, private=True) as draft, draft.open("w", encoding="utf-8") as stream:
        stream.writelines(_inert(json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
    return len(rows)


def _inert(line: str) -> str:
    r"""The same JSON, in which characters that are not seen, but do something, are `\\u` escapes."""
    unseen = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join(json.dumps(c)[1:-1] if unicodedata.category(c) in unseen else c for c in line)


def adopt(run: Run, file: Path) -> Counter[str]:
    """Take a file's labels as the words of `human`, in place of all older ones; all of them or none.

    Returns:
        How often each label was given; "" counts the lines that have none yet.

    Raises:
        LayeralignError: names the file, the line and what is wrong with it.
    """
    try:
        content = file.read_bytes()
        lines = content.decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LayeralignError(f"labels {file}: cannot be read as UTF-8 text ({error})") from error
    rows = _labelled(run)
    found: dict[RowKey, str | None] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}:{number}"
        given = _read(line, where)
        key = given["case"], given["exit"], given["sample"]
        if key not in rows:
            raise LayeralignError(
                f"{where}: case {key[0]!r}, exit {key[1]}, sample {key[2]}: run {run.path} has no such "
                "answer to a harmful case"
            )
        for name in ("prompt", "answer"):
            if given[name] != rows[key][name]:
                raise LayeralignError(
                    f"{where}: field {name!r} is not what run {run.path} has; only label may change"
                )
        if key in found:
            raise LayeralignError(f"{where}: case {key[0]!r}, exit {key[1]}, sample {key[2]} occurs twice")
        found[key] = given["label"]
    words = [(key, LABELS[label]) for key, label in found.items() if label is not None]
    if not words:
        raise LayeralignError(f"labels {file}: nothing is labelled; expected a label of {', '.join(LABELS)}")
    run.replace(HUMAN, {"labels": hashlib.sha256(content).hexdigest()}, words)
    return Counter(label or "" for label in found.values())


def _read(line: str, where: str) -> dict[str, Any]:
    given = json_of(line, where)
    if not isinstance(given, dict):
        raise LayeralignError(f"{where}: expected a JSON object, as label --out wrote it")
    for name, kind in _READ:
        if name not in given:
            raise LayeralignError(f"{where}: field {name!r} is missing")
        if type(given[name]) is not kind:
            what = "text" if kind is str else "a whole number"
            raise LayeralignError(f"{where}: field {name!r} is {given[name]!r}; expected {what}")
    if "label" not in given:
        raise LayeralignError(f"{where}: field 'label' is missing")
    label = given["label"]
    if label is not None and not (isinstance(label, str) and label in LABELS):
        raise LayeralignError(f"{where}: field 'label' is {label!r}; expected {', '.join(LABELS)}, or null")
    return given
