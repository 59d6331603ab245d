"""Cases and benchmarks in the terminal; what is asked is not shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from rich import box
from rich.table import Table

from layeralign.cases.case import Case
from layeralign.cases.readers.reader import BENCHMARKS
from layeralign.text import printable


def known() -> Table:
    """Every public benchmark that can be read."""
    made = Table(
        box=box.SIMPLE_HEAD,
        caption="--cases NAME:FOLDER reads your own copy; nothing is fetched. pairs:20x10:FOLDER combines "
        "20 prompts with 10 pictures, all 200.",
        caption_justify="left",
    )
    for head in ("name", "kind", "licence", "files, from"):
        made.add_column(head, overflow="fold")
    for one in BENCHMARKS.values():
        made.add_row(one.name, one.kind, one.licence, f"{', '.join(one.files)}\n{one.source}")
    return made


def table(cases: Sequence[Case]) -> Table:
    """How many cases there are of each kind and category, with pictures or not, and how long they are."""
    pictures = {case.picture.sha256 for case in cases if case.picture}
    prompts = {case.prompt for case in cases}
    made = Table(
        box=box.SIMPLE_HEAD,
        title=f"{len(cases)} cases: {len(prompts)} prompts, {len(pictures)} pictures",
        title_justify="left",
    )
    for head in ("kind", "category", "cases", "with picture", "prompt, characters"):
        made.add_column(head, justify="left" if head in ("kind", "category") else "right")
    for (kind, category), n in sorted(Counter((case.kind, case.category) for case in cases).items()):
        some = [case for case in cases if (case.kind, case.category) == (kind, category)]
        lengths = [len(case.prompt) for case in some]
        told = f"{min(lengths)}–{max(lengths)}, median {median(lengths):.0f}"
        made.add_row(
            kind, printable(category, 40), str(n), str(sum(c.picture is not None for c in some)), told
        )
    return made
