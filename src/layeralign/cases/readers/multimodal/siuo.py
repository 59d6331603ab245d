"""SIUO (Wang et al. 2024): a safe picture and a safe question that are unsafe together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layeralign.cases.origins import Hub
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.shared import folder as folders
from layeralign.cases.readers.shared import strict
from layeralign.cases.readers.shared.pictured import Draft, lister, reader
from layeralign.cases.readers.shared.strict import Row

_FILE = "siuo_gen.json"
_HUB = Hub("sinwang/SIUO")
_SOURCE = f"https://huggingface.co/datasets/{_HUB.repo}"


def _drafts(folder: Path) -> tuple[str, Sequence[Draft]]:
    rows = strict.listed(folders.find(folder, (_FILE, f"data/{_FILE}"), SIUO))
    return folders.either(folder, ("images", "data/images")), [_case(row) for row in rows]


def _case(row: Row) -> Draft:
    return Draft(
        where=row.where,
        id=f"{SIUO.name}-{row.number('question_id')}",
        prompt=row.text("question"),
        kind="harmful",
        picture=row.text("image"),
        category=row.text("category"),
        facts={"safety_warning": row.text("safety_warning")},
    )


SIUO = Benchmark(
    name="siuo",
    title="SIUO (generation)",
    kind="harmful",
    source=_SOURCE,
    licence="CC BY-NC 4.0",
    revision="024e80a01795376b9fed12f8073a12f2275f22ee",
    files=(_FILE, "images/<image of each row>"),
    about=(
        "167 questions; the harm lies in the combination with the picture. Most are answered safely by a "
        "warning and not by a refusal, so the refusal matcher overstates their ASR: use a guard or a rubric."
    ),
    read=reader(_drafts, f"the pictures are in images/ of {_SOURCE}"),
    origin=_HUB,
    texts={_FILE: 4},
    pictures=lister(_drafts),
)
