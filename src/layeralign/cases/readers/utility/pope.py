"""POPE (Li et al. 2023): is there such a thing in the picture?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layeralign.cases.origins import GitHub
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.shared import folder as folders
from layeralign.cases.readers.shared import strict
from layeralign.cases.readers.shared.pictured import Draft, reader
from layeralign.cases.readers.shared.strict import Row

_SORTS = ("random", "popular", "adversarial")
"""How things that are not in the picture were chosen."""
_PUBLISHED = {sort: f"output/coco/coco_pope_{sort}.json" for sort in _SORTS}
_PICTURES = ("val2014", "data/val2014", "images/val2014")


def _drafts(folder: Path) -> tuple[str, Sequence[Draft]]:
    found = []
    for sort, published in _PUBLISHED.items():
        file = folders.find(folder, (published, Path(published).name), POPE)
        found += [_case(row, sort) for row in strict.objects(file)]
    return folders.either(folder, _PICTURES), found


def _case(row: Row, sort: str) -> Draft:
    return Draft(
        where=row.where,
        id=f"{POPE.name}-{sort}-{row.number('question_id')}",
        prompt=row.text("text"),
        kind="vqa",
        picture=row.text("image"),
        category=sort,
        reference=row.one_of("label", ("yes", "no")),
        facts={"rule": "yes-no"},
    )


POPE = Benchmark(
    name="pope",
    title="POPE (MS-COCO)",
    kind="vqa",
    source="https://github.com/AoiDragon/POPE",
    licence="MIT; MS-COCO pictures: the terms of Flickr, each photographer's",
    revision="08d957b917e5a378a2f99d35b6293c536a66298b",
    files=(*_PUBLISHED.values(), "val2014/<image of each row>"),
    about=(
        "3 × 3,000 questions about 500 pictures, half of them to be answered no; the limit draws a seeded "
        "sample. Answers are read as POPE's own script does: no, not or No in the first sentence is no."
    ),
    read=reader(
        _drafts,
        "download val2014.zip (6 GB) from https://cocodataset.org/#download and unpack it to val2014",
        sampled=True,
    ),
    origin=GitHub("AoiDragon/POPE"),
    texts=dict.fromkeys(_PUBLISHED.values(), 4),
    by_hand="val2014 pictures",
)
