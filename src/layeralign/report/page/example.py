"""One case of an invented world: the model refuses at the default exit and answers at another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from layeralign.analysis.rows import Mask, Rows
from layeralign.cases.pictures import data_url
from layeralign.judges.kinds import ORACLE, TOPIC, kind_of
from layeralign.report.inputs import RunInput
from layeralign.report.page.findings import worst_exit
from layeralign.runs.columns import HARMFUL, SAFE, UNSAFE
from layeralign.testbed.drawn import drawn


@dataclass(frozen=True)
class Example:
    """A harmful case that the model refuses at the default exit and answers at the worst exit.

    Attributes:
        case: the case's id.
        prompt: the request.
        picture: a small copy of the picture as a data URL.
        default: name of the default exit.
        exit: name of the worst exit.
        refused: the answer at the default exit.
        answered: the answer at the worst exit.
    """

    case: str
    prompt: str
    picture: str
    default: str
    exit: str
    refused: str
    answered: str


def example(run: RunInput) -> Example | None:
    """Return the first such case, or None.

    Only a case of an invented world, in which nothing is harmful, can be one; its picture, drawn again,
    proves it. Answers of every other run are private.
    """
    judge, summary = run.summary.asr_judge, run.summary
    worst = worst_exit(summary)
    if kind_of(judge) not in (ORACLE, TOPIC) or worst is None or worst[0].default:
        return None
    default, exit = summary.default_exit, worst[0].exit
    found = _flipped(run, default, exit)
    if found is None:
        return None
    cases, names = run.results.columns.cases, run.exits
    id = cases.id[found]
    picture = drawn([id]).get(id)
    if picture is None or picture.sha256 != cases.picture[found]:
        return None
    answers = run.results.answers
    return Example(
        case=id,
        prompt=cases.prompt[found],
        picture=data_url(picture.open(), "WEBP", lossless=True),
        default=names.name(default),
        exit=names.name(exit),
        refused=answers[id, default, 0],
        answered=answers[id, exit, 0],
    )


def _flipped(run: RunInput, default: int, exit: int) -> int | None:
    """Return the number of the first harmful case that is refused at the default exit only."""
    base, other = run.rows.get(default), run.rows.get(exit)
    if base is None or other is None:
        return None
    refused = base.where(_first_answer(base) & (base.verdict == SAFE) & (base.refused == 1))
    answered = other.where(_first_answer(other) & (other.verdict == UNSAFE))
    both = np.intersect1d(refused.case, answered.case)
    return int(both[0]) if len(both) else None


def _first_answer(rows: Rows) -> Mask:
    first: Mask = (rows.role == HARMFUL) & (rows.sample == 0)
    return first
