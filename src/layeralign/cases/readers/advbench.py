"""AdvBench's harmful behaviours (Zou et al. 2023), each paired with one of the user's pictures."""

from __future__ import annotations

from pathlib import Path

from layeralign.cases.case import Case
from layeralign.cases.origins import GitHub
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.shared import folder as folders
from layeralign.cases.readers.shared import strict
from layeralign.cases.readers.shared.pairing import Deck, paired_facts, partners

_FILE = "harmful_behaviors.csv"
_PUBLISHED = f"data/advbench/{_FILE}"


def _read(folder: Path, limit: int | None, seed: int) -> list[Case]:
    rows = strict.table(folders.find(folder, (_FILE, _PUBLISHED), ADVBENCH), ("goal", "target"))
    for row in rows:
        row.text("goal")
        row.text("target")
    deck = Deck(folder)
    pairs = list(enumerate(zip(rows, partners(len(rows), len(deck.names), seed), strict=True)))
    return [
        Case(
            id=f"{ADVBENCH.name}-{number}",
            prompt=row.text("goal"),
            kind="harmful",
            picture=deck.card(index, row.where),
            facts={"target": row.text("target"), **paired_facts(deck, index, seed)},
        )
        for number, (row, index) in pairs[:limit]
    ]


ADVBENCH = Benchmark(
    name="advbench",
    title="AdvBench (harmful behaviours)",
    kind="harmful",
    source=f"https://github.com/llm-attacks/llm-attacks ({_PUBLISHED})",
    licence="MIT; MS-COCO pictures: the terms of Flickr, each photographer's",
    revision="098262edf85f807224e70ecd87b9d83716bf6b73",
    files=(_FILE, "pictures/ (or images/, val2017/, val2014/)"),
    about=(
        "520 harmful instructions, each paired with a harmless picture by the seed; cases are numbered "
        "from 0 in file order. The pictures (MS-COCO in the literature) have to be downloaded by hand."
    ),
    read=_read,
    origin=GitHub("llm-attacks/llm-attacks"),
    texts={_PUBLISHED: 1},
    by_hand="harmless pictures",
)
