"""VQA v2 (Goyal et al. 2017), validation split: measures whether a model still understands pictures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from layeralign.cases.case import Case
from layeralign.cases.origins import Archives
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.shared import folder as folders
from layeralign.cases.readers.shared import strict
from layeralign.cases.readers.shared.pairing import Album, sample
from layeralign.cases.readers.shared.strict import Row
from layeralign.errors import LayeralignError

_QUESTIONS = "v2_OpenEnded_mscoco_val2014_questions.json"
_ANNOTATIONS = "v2_mscoco_val2014_annotations.json"
_PICTURES = ("val2014", "Images/mscoco/val2014", "images/val2014")
_ANSWERS = 10


def _read(folder: Path, limit: int | None, seed: int) -> list[Case]:
    questions = _by_id(folders.find(folder, (_QUESTIONS, f"Questions/{_QUESTIONS}"), VQA), "questions")
    file = folders.find(folder, (_ANNOTATIONS, f"Annotations/{_ANNOTATIONS}"), VQA)
    annotations = _by_id(file, "annotations")
    for row in questions.values():
        row.text("question")
        row.number("image_id")
    fix = (
        "download val2014.zip (6 GB) by hand from https://cocodataset.org/#download and unpack it to val2014"
    )
    album = Album(folders.find_folder(folder, _PICTURES, "the pictures", fix), fix)
    cases = []
    for number, question in sample(list(questions.items()), limit, seed):
        if number not in annotations:
            raise LayeralignError(
                f"{file}: has no annotation of question {number} ({question.where}); "
                f"expected both files of one release; download both from {VQA.source}"
            )
        cases.append(_case(question, annotations[number], album))
    return cases


def _by_id(file: Path, name: str) -> dict[int, Row]:
    found: dict[int, Row] = {}
    rows = strict.document(file).rows(name)
    if not rows:
        raise LayeralignError(f"{file}: field {name!r} is an empty list; expected the {name} of val2014")
    for row in rows:
        number = row.number("question_id")
        if number in found:
            raise LayeralignError(
                f"{row.where}: question_id {number} is already used in {found[number].where}"
            )
        found[number] = row
    return found


def _case(question: Row, annotation: Row, album: Album) -> Case:
    image = question.number("image_id")
    if annotation.number("image_id") != image:
        raise LayeralignError(
            f"{annotation.where}: field 'image_id' is {annotation.number('image_id')}; expected {image} "
            f"as in {question.where}; download both files from {VQA.source}"
        )
    answers = [answer.text("answer") for answer in annotation.rows("answers")]
    if len(answers) != _ANSWERS:
        raise LayeralignError(
            f"{annotation.where}: field 'answers' has {len(answers)}; expected {_ANSWERS}, as in VQA v2"
        )
    own = annotation.text("multiple_choice_answer")
    return Case(
        id=f"{VQA.name}-{question.number('question_id')}",
        prompt=question.text("question"),
        kind="vqa",
        picture=album.picture(f"COCO_val2014_{image:012d}.jpg", question.where),
        category=annotation.text("answer_type"),
        reference=_most_common(answers, own),
        facts={"answers": answers, "question_type": annotation.text("question_type"), "image_id": image},
    )


def _most_common(answers: list[str], own: str) -> str:
    """The most common answer; on a tie, the dataset's own choice if it is among them, else the first."""
    counts = Counter(answers)
    return own if counts[own] == max(counts.values()) else counts.most_common(1)[0][0]


VQA = Benchmark(
    name="vqa-v2",
    title="VQA v2 (validation)",
    kind="vqa",
    source="https://visualqa.org/download.html",
    licence="CC BY 4.0; MS-COCO pictures: the terms of Flickr, each photographer's",
    revision=None,
    files=(_QUESTIONS, _ANNOTATIONS, "val2014/COCO_val2014_<image_id in 12 digits>.jpg"),
    about=(
        "214,354 questions about 40,504 pictures with 10 answers each, all kept in the facts; the limit "
        "draws a seeded sample. The pictures have to be downloaded by hand."
    ),
    read=_read,
    origin=Archives(
        "cvmlp/vqa/mscoco/vqa",
        {_QUESTIONS: "v2_Questions_Val_mscoco.zip", _ANNOTATIONS: "v2_Annotations_Val_mscoco.zip"},
    ),
    texts={_QUESTIONS: 64, _ANNOTATIONS: 256},
    by_hand="val2014 pictures",
)
