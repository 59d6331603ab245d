"""Every case of the runs, packed for the page: two letters per answer, and one more per further judge.

A page of a million answers has to open in a browser: it holds strings of letters, not lists of objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from layeralign._util.text import printable, printable_lines
from layeralign.analysis.rows import Rows
from layeralign.judges.kinds import words
from layeralign.report.charts.metrics import category
from layeralign.report.inputs import Report, RunInput
from layeralign.report.page.pictures import thumbnails
from layeralign.runs.columns import VERDICTS, Codes, Flags
from layeralign.runs.store import RowKey

LETTERS = {"safe": "s", "unsafe": "u", "invalid": "i", "not applicable": "n"}
"""Letter of each verdict; a blank is a missing row, or a row that the judge has not judged."""
OBSERVATIONS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
"""Letter of refused * 16 + coherent * 4 + correct; each is 0 for none, 1 for no, 2 for yes, 3 for partly."""
LONGEST = 4000
"""Maximum number of shown characters of a prompt or an answer."""
_FIELDS = ("id", "kind", "category", "control", "prompt", "picture")
_FEW = ("kind", "category", "control")
Key = tuple[str, str]
"""Id and hash of a case: runs side by side may have other cases of the same id."""


def packed(report: Report, *, with_answers: bool) -> dict[str, Any]:
    """Return the cases, and one letter per case for each run, exit and sample.

    Args:
        report: the runs.
        with_answers: whether to include prompts, answers and the judges' scores.
    """
    cases: dict[Key, dict[str, str]] = {}
    runs = [_run(shown, cases, with_answers=with_answers) for shown in report.runs]
    judges = {name for shown in report.runs for name in (shown.summary.asr_judge, *shown.judges)}
    pictures = _pictures(report, cases) if with_answers else {}
    return {
        "cases": _by_field(list(cases.values())),
        "runs": runs,
        "answers": with_answers,
        "words": {printable(name): _letters(name) for name in sorted(judges)},
        "pictures": pictures,
    }


def _by_field(cases: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Return each field of the cases as a list; of one with few values, the values and their numbers."""
    fields = {
        name: [case.get(name, "") for case in cases] for name in _FIELDS if any(name in c for c in cases)
    }
    found: dict[str, Any] = {}
    for name, values in fields.items():
        number = {value: at for at, value in enumerate(dict.fromkeys(values))}
        few = name in _FEW
        found[name] = {"values": list(number), "of": [number[value] for value in values]} if few else values
    return found


def _letters(judge: str) -> dict[str, str]:
    """What the judge says with each verdict, by the verdict's letter."""
    return {LETTERS[verdict]: word for verdict, word in words(judge).items()}


def _pictures(report: Report, cases: Mapping[Key, dict[str, str]]) -> dict[str, str]:
    """Small copies by hash; each case gets the hash of its picture. Harmful cases come first."""
    order = sorted(cases, key=lambda key: cases[key]["kind"] != "harmful")
    found: dict[str, str] = {}
    for shown in report.runs:
        own, of_case = shown.results.case_hashes, {id: sha256 for id, _, sha256 in shown.results.pictures}
        wanted = (id for id, case in order if own.get(id) == case and of_case.get(id) not in found)
        found.update(thumbnails(shown.results, wanted))
        for id, sha256 in of_case.items():
            if sha256 in found:
                cases[id, own[id]].setdefault("picture", sha256)
    return found


def _run(shown: RunInput, cases: dict[Key, dict[str, str]], *, with_answers: bool) -> dict[str, Any]:
    run = shown.results
    for case in run.cases:
        made = {"id": case.id, "kind": case.kind, "category": category(case.category, case.kind)}
        made = {name: printable(text, 80) for name, text in made.items()}
        if case.control:
            made["control"] = printable(case.control, 80)
        if with_answers:
            made["prompt"] = printable_lines(case.prompt, LONGEST)
        cases.setdefault((case.id, run.case_hashes[case.id]), made)
    places = {key: at for at, key in enumerate(cases)}
    every = run.scored(shown.summary.asr_judge)
    place = np.array([places[id, run.case_hashes[id]] for id in run.columns.cases.id], dtype=np.int64)
    answers = run.answers if with_answers else {}
    keys = sorted(set(zip(every.exit.tolist(), every.sample.tolist(), strict=True)))
    columns = []
    for exit, sample in keys:
        rows = every.where((every.exit == exit) & (every.sample == sample))
        column = {"exit": exit, "sample": sample, **_column(rows, place[rows.case], len(places))}
        if with_answers:
            column |= _private(rows, place[rows.case], len(places), answers)
        columns.append({"scores": {}, "answers": []} | column)
    panel = shown.summary.panel.judges if shown.summary.panel else ()
    return {
        "judge": printable(shown.summary.asr_judge),
        "panel": [printable(name) for name in panel],
        "columns": columns,
    }


def _column(rows: Rows, place: Codes, size: int) -> dict[str, Any]:
    """Return one exit and sample: [cases] letters, by judge and of the observations.

    `said` has a letter for every existing row, judged or not; see `OBSERVATIONS`.
    """
    verdicts = {judge: rows.verdicts(judge) for judge in rows.columns.verdicts}
    letters = np.array([LETTERS[verdict] for verdict in VERDICTS])
    refused, coherent, correct = map(_degrees, (rows.refused, rows.coherent, rows.correct))
    return {
        "said": _text(np.array(list(OBSERVATIONS))[16 * refused + 4 * coherent + correct], place, size),
        "verdicts": {
            printable(judge): _text(letters[code[code >= 0]], place[code >= 0], size)
            for judge, code in verdicts.items()
            if (code >= 0).any()
        },
    }


def _degrees(values: Flags) -> Codes:
    """Return 0 for no observation, 1 for no, 2 for yes, and 3 for partly."""
    return np.select([np.isnan(values), values == 0, values == 1], [0, 1, 2], 3)


def _text(letters: NDArray[np.str_], place: Codes, size: int) -> str:
    """Return one letter per case; blank where there is none."""
    made = np.full(size, " ")
    made[place] = letters
    return "".join(made.tolist())


def _private(rows: Rows, place: Codes, size: int, answers: Mapping[RowKey, str]) -> dict[str, Any]:
    """Return scores and answers of one exit and sample, by case."""
    scores: dict[str, list[float | None]] = {}
    for judge, measure, values in rows.scores():
        there = ~np.isnan(values)
        numbers: list[float | None] = [None] * size
        for at, value in zip(place[there].tolist(), values[there].tolist(), strict=True):
            numbers[at] = round(value, 4)
        if there.any():
            scores[printable(f"{measure}, {judge}")] = numbers
    texts: list[str | None] = [None] * size
    for at, key in zip(place.tolist(), rows.columns.keys(rows.at), strict=True):
        texts[at] = printable_lines(answers[key], LONGEST)
    return {"scores": scores, "answers": texts}
