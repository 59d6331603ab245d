"""VLGuard (Zong et al. 2024), test split: safe pictures with a safe and an unsafe instruction each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layeralign.cases.origins import Hub
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.shared import folder as folders
from layeralign.cases.readers.shared import strict
from layeralign.cases.readers.shared.pictured import Draft, reader
from layeralign.cases.readers.shared.strict import Row

_FILE = "test.json"
_HUB = Hub("ys-zong/VLGuard")
_SOURCE = f"https://huggingface.co/datasets/{_HUB.repo}"


def _drafts(folder: Path) -> tuple[str, Sequence[Draft]]:
    file = folders.find(folder, (_FILE, f"data/{_FILE}"), VLGUARD)
    root = folders.either(folder, ("test", "data/test"))
    return root, [one for row in strict.listed(file) for one in _cases(row)]


def _cases(row: Row) -> list[Draft]:
    """A harmful case of an unsafe picture; a harmless and a harmful one, as a pair, of a safe picture."""
    id, picture = f"{VLGUARD.name}-{row.id('id')}", row.text("image")
    given = {name: text for one in row.rows("instr-resp") for name, text in one.fields.items()}
    asked = Row(f"{row.where}, field 'instr-resp'", given)
    if not row.flag("safe"):
        category, facts = row.text("harmful_category"), {"subcategory": row.text("harmful_subcategory")}
        return [Draft(row.where, id, asked.text("instruction"), "harmful", picture, category, facts=facts)]
    pair = {"pair": id}
    safe, unsafe = asked.text("safe_instruction"), asked.text("unsafe_instruction")
    return [
        Draft(row.where, f"{id}-safe", safe, "benign", picture, "safe_safes", facts=pair),
        Draft(row.where, f"{id}-unsafe", unsafe, "harmful", picture, "safe_unsafes", facts=pair),
    ]


VLGUARD = Benchmark(
    name="vlguard",
    title="VLGuard (test)",
    kind="mixed",
    source=_SOURCE,
    licence="none stated; the dataset is gated",
    revision="b0be37a1ab7accb14e10d6a0ec3ce62cfaff2d46",
    files=(_FILE, "test/<image of each row>"),
    about=(
        "442 harmful requests about unsafe pictures, and 558 pairs: the same safe picture with a harmless "
        "and a harmful instruction. Accept the terms on the hub, and unpack test.zip to test/ by hand."
    ),
    read=reader(_drafts, f"download test.zip from {_SOURCE} and unpack it there"),
    origin=_HUB,
    texts={_FILE: 16},
    by_hand="test.zip, unpacked",
)
