"""Prompts × pictures: every selected prompt with every selected picture, from the user's own files."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np

from layeralign.cases.case import Case
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.shared import folder as folders
from layeralign.cases.readers.shared import strict
from layeralign.cases.readers.shared.pairing import Deck, paired_facts
from layeralign.cases.readers.shared.strict import Row
from layeralign.errors import LayeralignError

MAX_PAIRS = 1_000_000
_FILES = ("prompts.txt", "prompts.csv", "prompts.jsonl")


def grid(
    folder: Path,
    prompts: int | None = None,
    pictures: int | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
) -> list[Case]:
    """All combinations of `prompts` prompts and `pictures` pictures, drawn by the seed.

    Args:
        folder: Folder with `prompts.txt`, `.csv` or `.jsonl`, and a folder of pictures.
        prompts: Number of prompts; None for all.
        pictures: Number of pictures; None for all.
        limit: Keep only the first `limit` pairs; all pairs of the first prompt come first.
        seed: Seed of both draws; it has no effect on a list that is used completely.

    Raises:
        LayeralignError: A file is invalid, or has fewer prompts or pictures than requested.
    """
    file = folders.find(folder, _FILES, PAIRS)
    texts = _prompts(file)
    deck = Deck(folder)
    rng = np.random.default_rng(seed)
    rows = _drawn(rng, len(texts), prompts, f"{file}: has {len(texts)} prompts")
    cards = _drawn(rng, len(deck.names), pictures, f"{deck.folder}: has {len(deck.names)} pictures")
    size = len(rows) * len(cards)
    if min(size, size if limit is None else limit) > MAX_PAIRS:
        raise LayeralignError(
            f"{file}: gives {size:,} pairs with the pictures of {deck.folder}; the limit is {MAX_PAIRS:,}; "
            f"request fewer, as in {PAIRS.name}:20x10"
        )
    chosen = [pair for pair, _ in zip(product(rows, cards), range(size if limit is None else limit))]  # noqa: B905
    return [
        Case(
            id=f"{PAIRS.name}-{prompt}-{card}",
            prompt=texts[prompt].text("prompt"),
            kind="harmful",
            picture=deck.card(card, texts[prompt].where),
            facts={"prompt_index": prompt, **paired_facts(deck, card, seed)},
        )
        for prompt, card in chosen
    ]


def _drawn(rng: np.random.Generator, there: int, wanted: int | None, what: str) -> list[int]:
    if wanted is None:
        return list(range(there))
    if wanted > there:
        raise LayeralignError(f"{what}; expected at least {wanted}, as requested")
    return sorted(rng.choice(there, size=wanted, replace=False).tolist())


def _prompts(file: Path) -> list[Row]:
    if file.suffix == ".txt":
        found = [Row(f"{file}:{line}", {"prompt": text.strip()}) for line, text in strict.lines(file)]
    elif file.suffix == ".csv":
        found = strict.table(file, ("prompt",))
    else:
        found = strict.objects(file)
    taken: dict[str, str] = {}
    for row in found:
        first = taken.setdefault(row.text("prompt"), row.where)
        if first != row.where:
            raise LayeralignError(f"{row.where}: repeats the prompt of {first}; expected each prompt once")
    return found


def _read(folder: Path, limit: int | None, seed: int) -> list[Case]:
    return grid(folder, limit=limit, seed=seed)


PAIRS = Benchmark(
    name="pairs",
    title="prompts × pictures",
    kind="harmful",
    source="your own list of harmful prompts and your own harmless pictures",
    licence="that of the lists",
    revision=None,
    files=("prompts.txt, prompts.csv or prompts.jsonl", "pictures/ (or images/, val2017/, val2014/)"),
    about=(
        "Every prompt with every picture. `pairs:20x10` draws 20 prompts and 10 pictures by the seed and "
        "makes all 200 combinations; ids give the numbers of the prompt and the picture."
    ),
    read=_read,
    by_hand="prompts and pictures",
)
