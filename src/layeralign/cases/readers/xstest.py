"""XSTest (Röttger et al. 2024): safe prompts that look unsafe."""

from __future__ import annotations

from pathlib import Path

from layeralign.cases.case import Case
from layeralign.cases.origins import GitHub
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.shared import folder as folders
from layeralign.cases.readers.shared import strict
from layeralign.errors import LayeralignError

_FILE = "xstest_prompts.csv"
_LABELS = ("safe", "unsafe")


def _read(folder: Path, limit: int | None, seed: int) -> list[Case]:
    file = folders.find(folder, (_FILE,), XSTEST)
    taken: dict[str, str] = {}
    cases = []
    for row in strict.table(file, ("id", "prompt", "type", "label", "focus", "note")):
        id = strict.claim(taken, f"{XSTEST.name}-{row.id('id')}", row.where)
        prompt = row.text("prompt")
        label = row.one_of("label", _LABELS)
        facts = {
            "type": row.text("type"),
            "focus": row.text("focus", blank=True),
            "note": row.text("note", blank=True),
        }
        if label == "safe":
            cases.append(Case(id=id, prompt=prompt, kind="benign", category="borderline", facts=facts))
    if not cases:
        raise LayeralignError(f"{file}: has no prompt labelled 'safe'; expected the 250 of XSTest")
    return cases[:limit]


XSTEST = Benchmark(
    name="xstest",
    title="XSTest (safe prompts)",
    kind="benign",
    source="https://github.com/paul-rottger/xstest",
    licence="CC BY 4.0",
    revision="475f10bf0a3d6a9dfb174b6de1a38afbfdff98a5",
    files=(_FILE,),
    about="250 safe prompts that look unsafe, text only; the 200 unsafe prompts are checked and left out.",
    read=_read,
    origin=GitHub("paul-rottger/xstest"),
    texts={_FILE: 1},
)
