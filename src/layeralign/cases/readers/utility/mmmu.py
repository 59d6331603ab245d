"""MMMU (Yue et al. 2024), validation split: multiple-choice questions of 30 college subjects."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

from layeralign.cases.origins import Hub
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.shared import folder as folders
from layeralign.cases.readers.shared import packed
from layeralign.cases.readers.shared.pictured import Draft, reader
from layeralign.cases.readers.shared.strict import Row
from layeralign.errors import LayeralignError

_HUB = Hub("MMMU/MMMU")
_SUBJECTS = (
    "Accounting", "Agriculture", "Architecture_and_Engineering", "Art", "Art_Theory", "Basic_Medical_Science",
    "Biology", "Chemistry", "Clinical_Medicine", "Computer_Science", "Design",
    "Diagnostics_and_Laboratory_Medicine", "Economics", "Electronics", "Energy_and_Power", "Finance",
    "Geography", "History", "Literature", "Manage", "Marketing", "Materials", "Math",
    "Mechanical_Engineering", "Music", "Pharmacy", "Physics", "Psychology", "Public_Health", "Sociology",
)  # fmt: skip
_FILES = {subject: f"{subject}/validation-00000-of-00001.parquet" for subject in _SUBJECTS}
_COLUMNS = ("id", "question", "options", "answer", "question_type", "image_1", "image_2")
_ASKED = "Answer with the option's letter from the given choices directly."
_LONGEST = 20_000


def _drafts(folder: Path) -> tuple[str, Sequence[Draft]]:
    """The questions of every subject whose file exists, with several options and one picture."""
    folders.find(folder, tuple(_FILES.values()), MMMU)
    there = [(subject, folder / name) for subject, name in _FILES.items() if folders.search(folder, (name,))]
    rows = [(subject, row) for subject, file in there for row in packed.records(file, _COLUMNS)]
    return "", [
        _case(row, subject)
        for subject, row in rows
        if row.text("question_type") == "multiple-choice" and row.fields["image_2"] is None
    ]


def _case(row: Row, subject: str) -> Draft:
    options = _options(row)
    shown = "\n".join(
        f"({letter}) {option}" for letter, option in zip(ascii_uppercase, options, strict=False)
    )
    return Draft(
        where=row.where,
        id=f"{MMMU.name}-{row.id('id')}",
        prompt=f"{row.text('question')}\n{shown}\n\n{_ASKED}",
        kind="vqa",
        picture=packed.content(row, "image_1"),
        category=subject,
        reference=row.one_of("answer", ascii_uppercase[: len(options)]),
        facts={"rule": "choice", "options": options},
    )


def _options(row: Row) -> list[str]:
    """The field is the text of a Python list of texts."""
    text = row.text("options")
    try:
        found = ast.literal_eval(text) if len(text) <= _LONGEST else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if isinstance(found, list) and 2 <= len(found) <= len(ascii_uppercase):
        return [Row(row.where, {"options": one}).text("options") for one in found]
    raise LayeralignError(f"{row.where}: field 'options' is not a list; expected 2 to 26 texts, as in MMMU")


MMMU = Benchmark(
    name="mmmu",
    title="MMMU (validation)",
    kind="vqa",
    source=f"https://huggingface.co/datasets/{_HUB.repo}",
    licence="Apache 2.0",
    revision="98e6ac0cb9b7b2cd2c991b85a50762edc4aedc68",
    files=("<Subject>/validation-00000-of-00001.parquet",),
    about=(
        "Those of the 900 questions that have options and one picture; the limit draws a seeded sample. "
        "Reading needs layeralign[parquet]; the pictures are unpacked into the cache."
    ),
    read=reader(_drafts, "", sampled=True),
    origin=_HUB,
    texts=dict.fromkeys(_FILES.values(), 128),
)
