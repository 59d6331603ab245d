"""StrongREJECT's forbidden prompts (Souly et al. 2024), each paired with one of the user's pictures."""

from __future__ import annotations

from pathlib import Path

from layeralign.cases.case import Case
from layeralign.cases.origins import GitHub
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.shared import folder as folders
from layeralign.cases.readers.shared import strict
from layeralign.cases.readers.shared.pairing import Deck, paired_facts, partners

_FILE = "strongreject_dataset.csv"
_PUBLISHED = f"strongreject_dataset/{_FILE}"


def _read(folder: Path, limit: int | None, seed: int) -> list[Case]:
    file = folders.find(folder, (_FILE, _PUBLISHED), STRONGREJECT)
    rows = strict.table(file, ("category", "source", "forbidden_prompt"))
    for row in rows:
        for name in ("category", "source", "forbidden_prompt"):
            row.text(name)
    deck = Deck(folder)
    pairs = list(enumerate(zip(rows, partners(len(rows), len(deck.names), seed), strict=True)))
    return [
        Case(
            id=f"{STRONGREJECT.name}-{number}",
            prompt=row.text("forbidden_prompt"),
            kind="harmful",
            picture=deck.card(index, row.where),
            category=row.text("category"),
            facts={"source": row.text("source"), **paired_facts(deck, index, seed)},
        )
        for number, (row, index) in pairs[:limit]
    ]


STRONGREJECT = Benchmark(
    name="strongreject",
    title="StrongREJECT",
    kind="harmful",
    source=f"https://github.com/alexandrasouly/strongreject ({_PUBLISHED})",
    licence="MIT; MS-COCO pictures: the terms of Flickr, each photographer's",
    revision="f7cad6c17e624e21d8df2278e918ae1dddb4cb56",
    files=(_FILE, "pictures/ (or images/, val2017/, val2014/)"),
    about=(
        "313 forbidden prompts of 6 categories, each paired with a harmless picture by the seed; numbered "
        "from 0 in file order. The `graded` rubric scores the answers on its scale."
    ),
    read=_read,
    origin=GitHub("alexandrasouly/strongreject"),
    texts={_PUBLISHED: 1},
    by_hand="harmless pictures",
)
