"""One case of an invented world: the model refuses at the default exit and answers at another."""

from __future__ import annotations

from dataclasses import dataclass

from layeralign.cases.pictures import data_url
from layeralign.judges.kinds import ORACLE, TOPIC, kind_of
from layeralign.report.inputs import RunInput
from layeralign.report.page.findings import worst_exit
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
    seen = {
        (row.case, row.exit): row
        for row in run.results.judged
        if row.judge == judge and row.kind == "harmful" and not row.control and row.sample == 0
    }
    default, exit = summary.default_exit, worst[0].exit
    for (case, at), row in seen.items():
        base = seen.get((case, default))
        if at == exit and row.verdict == "unsafe" and base and base.verdict == "safe" and base.refused:
            picture = drawn([case]).get(case)
            if picture is None or picture.sha256 != row.picture:
                return None
            answers, names = run.results.answers, run.exits
            return Example(
                case=case,
                prompt=row.prompt,
                picture=data_url(picture.open(), "WEBP", lossless=True),
                default=names.name(default),
                exit=names.name(exit),
                refused=answers[case, default, 0],
                answered=answers[case, exit, 0],
            )
    return None
