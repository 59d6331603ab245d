"""HoliSafe-Bench (Lee et al. 2025): five combinations of safe and unsafe pictures, queries and outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layeralign.cases.origins import Hub
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.shared import folder as folders
from layeralign.cases.readers.shared import strict
from layeralign.cases.readers.shared.pictured import Draft, lister, paired, reader
from layeralign.cases.readers.shared.strict import Row

_FILE = "holisafe_bench.json"
_HUB = Hub("etri-vilab/holisafe-bench")
_SOURCE = f"https://huggingface.co/datasets/{_HUB.repo}"
_TYPES = ("SSS", "SSU", "SUU", "USU", "UUU")
"""Is the picture, the query, and both together, safe (S) or unsafe (U)?"""


def _drafts(folder: Path) -> tuple[str, Sequence[Draft]]:
    found = [_case(row) for row in strict.listed(folders.find(folder, (_FILE,), HOLISAFE))]
    return "images", paired(found, [one for one in found if one.facts["type"] == "SUU"])


def _case(row: Row) -> Draft:
    type = row.one_of("type", _TYPES)
    id = str(row.number("id")) if isinstance(row.fields.get("id"), int) else row.id("id")
    return Draft(
        where=row.where,
        id=f"{HOLISAFE.name}-{id}",
        prompt=row.text("query"),
        kind="benign" if type == "SSS" else "harmful",
        picture=row.text("image"),
        category=row.text("category"),
        facts={"type": type, "subcategory": row.text("subcategory")},
    )


HOLISAFE = Benchmark(
    name="holisafe",
    title="HoliSafe-Bench",
    kind="mixed",
    source=_SOURCE,
    licence="CC BY-NC 4.0; pictures of other datasets: their own",
    revision=None,
    files=(_FILE, "images/<image of each row>"),
    about=(
        "4,031 queries about 1,796 pictures. Type SSS is benign, the others are harmful. Where a picture has "
        "SSS and SUU queries, they are pairs. Accept the terms on the hub first."
    ),
    read=reader(_drafts, f"the pictures are in images/ of {_SOURCE}"),
    origin=_HUB,
    texts={_FILE: 32},
    pictures=lister(_drafts),
)
