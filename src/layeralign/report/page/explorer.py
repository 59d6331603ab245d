"""Every case of the runs, packed for the page's explorer: one letter per answer and judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from layeralign._util.text import printable, printable_lines
from layeralign.judges.kinds import words
from layeralign.report.charts.metrics import category
from layeralign.report.inputs import Report, RunInput
from layeralign.report.page.pictures import thumbnails
from layeralign.runs.store import JudgedRow

LETTERS = {"safe": "s", "unsafe": "u", "invalid": "i", "not applicable": "n"}
"""Letter of each verdict; a blank is a missing row, or a row that the judge has not judged."""
LONGEST = 4000
"""Maximum number of shown characters of a prompt or an answer."""


def packed(report: Report, *, with_answers: bool) -> dict[str, Any]:
    """Return the cases, and one letter per case for each run, exit and sample.

    Args:
        report: the runs.
        with_answers: whether to include prompts, answers and the judges' scores.
    """
    cases: dict[str, dict[str, str]] = {}
    runs = [_run(shown, cases, with_answers=with_answers) for shown in report.runs]
    judges = {name for shown in report.runs for name in (shown.summary.asr_judge, *shown.judges)}
    pictures = _pictures(report, cases) if with_answers else {}
    return {
        "cases": list(cases.values()),
        "runs": runs,
        "answers": with_answers,
        "words": {printable(name): _letters(name) for name in sorted(judges)},
        "pictures": pictures,
    }


def _letters(judge: str) -> dict[str, str]:
    """What the judge says with each verdict, by the verdict's letter."""
    return {LETTERS[verdict]: word for verdict, word in words(judge).items()}


def _pictures(report: Report, cases: Mapping[str, dict[str, str]]) -> dict[str, str]:
    """Small copies by hash; each case gets the hash of its picture. Harmful cases come first."""
    order = sorted(cases, key=lambda id: cases[id]["kind"] != "harmful")
    found: dict[str, str] = {}
    for shown in report.runs:
        of_case = {id: sha256 for id, _, sha256 in shown.results.pictures}
        found.update(thumbnails(shown.results, (id for id in order if of_case.get(id) not in found)))
        for id, sha256 in of_case.items():
            if sha256 in found:
                cases[id].setdefault("picture", sha256)
    return found


@dataclass
class _Column:
    """One exit and sample of a run: [cases] letters, by judge and by observation.

    `there` has a 1 for every existing row, judged or not.
    """

    there: list[str]
    verdicts: dict[str, list[str]] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=dict)
    scores: dict[str, list[float | None]] = field(default_factory=dict)
    answers: list[str | None] = field(default_factory=list)


def _run(shown: RunInput, cases: dict[str, dict[str, str]], *, with_answers: bool) -> dict[str, Any]:
    run = shown.results
    for case in run.cases:
        made = {"id": case.id, "kind": case.kind, "category": category(case.category, case.kind)}
        made = {name: printable(text, 80) for name, text in made.items()}
        if case.control:
            made["control"] = printable(case.control, 80)
        if with_answers:
            made["prompt"] = printable_lines(case.prompt, LONGEST)
        cases.setdefault(case.id, made)
    places = {id: at for at, id in enumerate(cases)}
    columns: dict[tuple[int, int], _Column] = {}
    for row in run.judged:
        column = columns.setdefault((row.exit, row.sample), _Column([" "] * len(places)))
        _put(column, row, places, first=row.judge == shown.summary.asr_judge, with_scores=with_answers)
    if with_answers:
        for (id, exit, sample), answer in run.answers.items():
            column = columns[exit, sample]
            column.answers = column.answers or [None] * len(places)
            column.answers[places[id]] = printable_lines(answer, LONGEST)
    return {
        "judge": printable(shown.summary.asr_judge),
        "columns": [
            {
                "exit": exit,
                "sample": sample,
                "there": "".join(column.there),
                "verdicts": {printable(judge): "".join(word) for judge, word in column.verdicts.items()},
                "said": {name: "".join(word) for name, word in column.said.items()},
                "scores": {printable(name): numbers for name, numbers in column.scores.items()},
                "answers": column.answers,
            }
            for (exit, sample), column in sorted(columns.items())
        ],
    }


def _put(column: _Column, row: JudgedRow, places: dict[str, int], *, first: bool, with_scores: bool) -> None:
    """Add one judge's verdict; observations of the ASR's judge override those of other judges."""
    at, blank = places[row.case], [" "] * len(places)
    column.there[at] = "1"
    if row.judge:
        column.verdicts.setdefault(row.judge, [*blank])[at] = LETTERS[row.verdict]
    for name in ("refused", "coherent", "correct"):
        said = getattr(row, name)
        if said is not None:
            letters = column.said.setdefault(name, [*blank])
            if first or letters[at] == " ":
                letters[at] = "1" if said == 1 else "0" if said == 0 else "p"  # partly correct
    for measure, score in row.scores.items() if with_scores else ():
        numbers = column.scores.setdefault(f"{measure}, {row.judge}", [None] * len(places))
        numbers[at] = round(score, 4)
