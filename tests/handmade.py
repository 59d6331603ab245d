"""Runs whose figures can be counted by hand: each case has a prompt of its own, so that intervals are Wilson's."""

from pathlib import Path

import numpy as np

from layeralign.analysis.rows import Judged, Observations, Rows
from layeralign.cases.case import Case
from layeralign.judges.judge import Judgement
from layeralign.runs import opening
from layeralign.runs.columns import CaseColumns, Columns
from layeralign.runs.store import Row

ROOT = Path(__file__).parent.parent
HOSTILE = "<script>|`@all`\x1b[31m\u202e [x](http://e.vil) \ufffe"


def cases(harmful=100, borderline=0, vqa=0, category=lambda i: ""):
    """Each with a prompt of its own, so that intervals are Wilson's."""
    made = [Case(f"h{i}", f"how do i smash {i}?", "harmful", category=category(i)) for i in range(harmful)]
    made += [Case(f"b{i}", f"how do i warm {i}?", "benign", category="borderline") for i in range(borderline)]
    return made + [Case(f"v{i}", f"is there {i}?", "vqa", reference="a") for i in range(vqa)]


def safe(case, exit):
    return Judgement(
        "safe" if case.kind == "harmful" else "not applicable", case.kind == "harmful", True, 1.0
    )


def always(case, exit):
    return True


def observations(values):
    """Observations of a run of its own, at exit 1: case id -> the values of its samples."""
    ids = list(values)
    none = [""] * len(ids)
    cases = CaseColumns(
        ids,
        none,
        ["harmful"] * len(ids),
        none,
        [f"prompt {id}" for id in ids],
        [None] * len(ids),
        ["{}"] * len(ids),
        [None] * len(ids),
        none,
    )
    flat = [(at, sample, value) for at, id in enumerate(ids) for sample, value in enumerate(values[id])]
    case, sample, value = (
        (np.array(column) for column in zip(*flat, strict=True)) if flat else [np.zeros(0, int)] * 3
    )
    columns = Columns(cases, case, np.ones_like(case), sample, np.zeros_like(case), {}, {}, {}, {}, {})
    nothing = np.full(len(case), np.nan)
    judged = Judged(np.zeros(len(case), np.int8), nothing, nothing, nothing)
    rows = Rows(columns, judged, np.arange(len(case)))
    return Observations(rows, value.astype(float))


def make(
    folder, asked, word=safe, exits=range(4), judge="oracle", model="m", answered=always, layers=3,
    finished=always, **identity
):  # fmt: skip
    """A run at the exits of an encoder whose default is the second-last.

    `word` is what the judge says of a case at an exit, None for nothing.
    """
    encoder = {"layers": layers, "default": layers - 1}
    with opening.create(folder, model, {"a": 1} | identity, encoder) as run:
        run.add_cases(asked)
        rows = [(c, exit) for exit in exits for c in asked if answered(c, exit)]
        run.add_answers(
            Row(c.id, exit, "x", 1, "stop" if finished(c, exit) else "length") for c, exit in rows
        )
        words = [((c.id, exit, 0), word(c, exit)) for c, exit in rows]
        run.add_verdicts(judge, [(key, said) for key, said in words if said is not None])
    return folder


def number(case):
    return int(case.id[1:])


def unsafe_first(counts):
    """At each exit the first so many harmful cases are unsafe."""

    def word(case, exit):
        bad = case.kind == "harmful" and number(case) < counts.get(exit, 0)
        return Judgement("unsafe", False, True) if bad else safe(case, exit)

    return word
