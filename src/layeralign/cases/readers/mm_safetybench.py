"""MM-SafetyBench (Liu et al. 2024): a harmful question whose key phrase is in the picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from layeralign.cases.case import Case
from layeralign.cases.origins import GitHub
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.shared import folder as folders
from layeralign.cases.readers.shared import strict
from layeralign.cases.readers.shared.pairing import Album
from layeralign.cases.readers.shared.strict import Row
from layeralign.errors import LayeralignError

_ASKED = {"SD": "Rephrased Question(SD)", "SD_TYPO": "Rephrased Question", "TYPO": "Rephrased Question"}
"""Kind of picture -> column of the question that goes with it."""
_QUESTIONS = ("data/processed_questions", "processed_questions")
_PICTURES = (
    "data/imgs", "imgs", "data/MM-SafetyBench(imgs)", "MM-SafetyBench(imgs)",
)  # fmt: skip
_SCENARIOS = (
    "01-Illegal_Activitiy", "02-HateSpeech", "03-Malware_Generation", "04-Physical_Harm", "05-EconomicHarm",
    "06-Fraud", "07-Sex", "08-Political_Lobbying", "09-Privacy_Violence", "10-Legal_Opinion",
    "11-Financial_Advice", "12-Health_Consultation", "13-Gov_Decision",
)  # fmt: skip
"""The authors' names; the user's own copy may have fewer."""
_ARCHIVE = "https://drive.google.com/file/d/1xjW9k-aGkmwycqGCXbru70FaSKhSDcR_/view"


def _read(folder: Path, limit: int | None, seed: int) -> list[Case]:
    questions = folders.find_folder(folder, _QUESTIONS, "the questions", f"download it from {MM.source}")
    files = sorted(questions.glob("*.json"))
    if not files:
        raise LayeralignError(
            f"{questions}: has no JSON file; expected one per scenario; download them from {MM.source}"
        )
    rows = [(file.stem, number, row) for file in files for number, row in _rows(file)]
    fix = f"download MM-SafetyBench(imgs).zip by hand from {_ARCHIVE} and unpack it to data/imgs"
    album = Album(folders.find_folder(folder, _PICTURES, "the pictures", fix), fix)
    asked = [(scenario, number, row, shape) for scenario, number, row in rows for shape in _ASKED]
    return [_case(album, *each) for each in asked[:limit]]


def _rows(file: Path) -> Iterator[tuple[str, Row]]:
    """The questions of one scenario with their numbers; every field is checked."""
    named = strict.document(file).fields
    if not named:
        raise LayeralignError(f"{file}: has no questions; download it again from {MM.source}")
    for number, value in named.items():
        where = f"{file}, question {strict.shown(number)}"
        row = strict.row(value, where)
        for name in ("Question", "Changed Question", "Key Phrase", *_ASKED.values()):
            row.text(name)
        yield Row(where, {"number": number}).id("number"), row


def _case(album: Album, scenario: str, number: str, row: Row, shape: str) -> Case:
    facts = {
        "question": row.text("Question"),
        "changed_question": row.text("Changed Question"),
        "key_phrase": row.text("Key Phrase"),
        "picture_kind": shape,
    }
    if "Phrase Type" in row.fields:
        facts["phrase_type"] = row.text("Phrase Type", blank=True)
    return Case(
        id=f"{MM.name}-{scenario}-{number}-{shape}",
        prompt=row.text(_ASKED[shape]),
        kind="harmful",
        picture=album.picture(f"{scenario}/{shape}/{number}.jpg", row.where),
        category=scenario,
        facts=facts,
    )


MM = Benchmark(
    name="mm-safetybench",
    title="MM-SafetyBench",
    kind="harmful",
    source="https://github.com/isXinLiu/MM-SafetyBench",
    licence="CC BY-NC 4.0",
    revision="b80eedea3db312c09ded2082813390f68e750ef3",
    files=(
        "data/processed_questions/<scenario>.json",
        "data/imgs/<scenario>/{SD,SD_TYPO,TYPO}/<number>.jpg",
    ),
    about=(
        "1,680 questions of 13 scenarios, each with three pictures, which have to be downloaded by hand. "
        "Scenarios 10 to 12 (legal, financial, health) ask for advice, not for harm."
    ),
    read=_read,
    origin=GitHub("isXinLiu/MM-SafetyBench"),
    texts={f"{_QUESTIONS[0]}/{scenario}.json": 4 for scenario in _SCENARIOS},
    by_hand="pictures",
)
