"""MSTS (Röttger et al. 2025): requests whose harm appears only together with the picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layeralign.cases.origins import GitHub
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.shared import folder as folders
from layeralign.cases.readers.shared import strict
from layeralign.cases.readers.shared.pictured import Draft, reader
from layeralign.cases.readers.shared.strict import Row

_FILE = "english_multimodal.csv"
_PUBLISHED = f"data/prompts/{_FILE}"
_COLUMNS = ("hazard_category", "case_id", "unsafe_image_id", "prompt_id", "prompt_text", "prompt_type")
_REPO = "paul-rottger/msts-multimodal-safety"


def _drafts(folder: Path) -> tuple[str, Sequence[Draft]]:
    rows = strict.table(folders.find(folder, (_PUBLISHED, _FILE), MSTS), _COLUMNS)
    root = folders.either(folder, ("data/unsafe_images", "unsafe_images"))
    return root, [_case(row, folder / root) for row in rows]


def _case(row: Row, pictures: Path) -> Draft:
    """The authors' script saves each picture as .jpg or .png, as its address says."""
    image = row.id("unsafe_image_id")
    saved = folders.search(pictures, (f"{image}.jpg", f"{image}.png"))
    return Draft(
        where=row.where,
        id=f"{MSTS.name}-{row.id('prompt_id')}",
        prompt=row.text("prompt_text"),
        kind="harmful",
        picture=saved.name if saved else f"{image}.jpg",
        category=row.text("hazard_category"),
        facts={"case_id": row.id("case_id"), "prompt_type": row.one_of("prompt_type", _TYPES)},
    )


_TYPES = ("assistance", "intention")
MSTS = Benchmark(
    name="msts",
    title="MSTS (English)",
    kind="harmful",
    source=f"https://github.com/{_REPO}",
    licence="CC BY 4.0; pictures: each its own",
    revision="e9ae69e8f1ab87ab2bb2ed7c51e992e0430f12e3",
    files=(_PUBLISHED, "data/unsafe_images/<unsafe_image_id>.jpg or .png"),
    about=(
        "200 cases, each asked as a question and as an intention. The authors' script "
        "src/0_download_images.py fetches the pictures from their own places to data/unsafe_images."
    ),
    read=reader(_drafts, f"run src/0_download_images.py of https://github.com/{_REPO} and copy them there"),
    origin=GitHub(_REPO),
    texts={_PUBLISHED: 4},
    by_hand="pictures, by the authors' script",
)
