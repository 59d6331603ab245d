"""HarmBench's text behaviours (Mazeika et al. 2024), each paired with one of the user's harmless pictures."""

from __future__ import annotations

from pathlib import Path

from layeralign.cases.case import Case
from layeralign.cases.origins import GitHub
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.shared import folder as folders
from layeralign.cases.readers.shared import strict
from layeralign.cases.readers.shared.pairing import Deck, paired_facts, partners
from layeralign.cases.readers.shared.strict import Row

_FILE = "harmbench_behaviors_text_all.csv"
_PUBLISHED = f"data/behavior_datasets/{_FILE}"
_COLUMNS = ("Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString", "BehaviorID")
_FUNCTIONS = ("standard", "contextual", "copyright")


def _read(folder: Path, limit: int | None, seed: int) -> list[Case]:
    rows = strict.table(folders.find(folder, (_FILE, _PUBLISHED), HARMBENCH), _COLUMNS)
    taken: dict[str, str] = {}
    for row in rows:
        strict.claim(taken, row.id("BehaviorID"), row.where)
        _check(row)
    deck = Deck(folder)
    pairs = list(zip(rows, partners(len(rows), len(deck.names), seed), strict=True))
    return [
        Case(
            id=f"{HARMBENCH.name}-{row.id('BehaviorID')}",
            prompt=_prompt(row),
            kind="harmful",
            picture=deck.card(index, row.where),
            category=row.text("SemanticCategory"),
            facts={
                "behavior": row.text("Behavior"),
                "context": row.text("ContextString", blank=True),
                "functional_category": row.text("FunctionalCategory"),
                "tags": [tag.strip() for tag in row.text("Tags", blank=True).split(",") if tag.strip()],
                **paired_facts(deck, index, seed),
            },
        )
        for row, index in pairs[:limit]
    ]


def _check(row: Row) -> None:
    row.text("Behavior")
    row.text("SemanticCategory")
    if row.one_of("FunctionalCategory", _FUNCTIONS) == "contextual":
        row.text("ContextString")


def _prompt(row: Row) -> str:
    """HarmBench's direct request: the context, if there is one, goes before the behaviour."""
    context = row.text("ContextString", blank=True)
    return f"{context}\n\n---\n\n{row.text('Behavior')}" if context.strip() else row.text("Behavior")


HARMBENCH = Benchmark(
    name="harmbench",
    title="HarmBench (text behaviours)",
    kind="harmful",
    source=f"https://github.com/centerforaisafety/HarmBench ({_PUBLISHED})",
    licence="MIT; MS-COCO pictures: the terms of Flickr, each photographer's",
    revision="8e1604d1171fe8a48d8febecd22f600e462bdcdd",
    files=(_FILE, "pictures/ (or images/, val2017/, val2014/)"),
    about=(
        "400 behaviours, each paired with a harmless picture by the seed; the context of contextual "
        "behaviours goes before them. Copyright behaviours need HarmBench's own judge. "
        "The pictures have to be downloaded by hand."
    ),
    read=_read,
    origin=GitHub("centerforaisafety/HarmBench"),
    texts={_PUBLISHED: 4},
    by_hand="harmless pictures",
)
