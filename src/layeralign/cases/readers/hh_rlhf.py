"""HH-RLHF (Bai et al. 2022): the first human turn of each dialogue."""

from __future__ import annotations

from pathlib import Path

from layeralign.cases.case import Case, Kind
from layeralign.cases.origins import Hub
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.shared import folder as folders
from layeralign.cases.readers.shared import strict
from layeralign.cases.readers.shared.pairing import sample
from layeralign.cases.readers.shared.strict import Row
from layeralign.errors import LayeralignError

_HUMAN = "\n\nHuman:"
_ASSISTANT = "\n\nAssistant:"
_KINDS: dict[str, Kind] = {"harmless-base": "harmful", "helpful-base": "benign"}
_SPLITS = ("test", "train")


def _read(folder: Path, limit: int | None, seed: int) -> list[Case]:
    found = [case for subset, split, file in _files(folder) for case in _cases(file, subset, split)]
    return sample(found, limit, seed)


def _files(folder: Path) -> list[tuple[str, str, Path]]:
    """Subset, split and path of each file that exists; `folder` may be the folder of one subset."""
    places = {folder.resolve().name: folder} if folder.resolve().name in _KINDS else {}
    places = places or {subset: folder / subset for subset in _KINDS}
    found = []
    for subset, place in places.items():
        for split in _SPLITS:
            file = folders.search(place, (f"{split}.jsonl.gz", f"{split}.jsonl"))
            if file is not None:
                found.append((subset, split, file))
    if not found:
        names = " or ".join(f"{subset}/{{test,train}}.jsonl.gz" for subset in _KINDS)
        raise LayeralignError(
            f"{folder}: has no {names} (nor .jsonl); expected {HH.title} as published; "
            f"download it from {HH.source}"
        )
    return found


def _cases(file: Path, subset: str, split: str) -> list[Case]:
    cases = []
    for row in strict.objects(file):
        prompt = _first_turn(row, "chosen")
        _first_turn(row, "rejected")
        if prompt:  # an empty turn asks nothing
            cases.append(
                Case(
                    id=f"{HH.name}-{subset}-{split}-{row.where.rpartition(':')[2]}",
                    prompt=prompt,
                    kind=_KINDS[subset],
                    category=subset,
                    facts={"subset": subset, "split": split},
                )
            )
    if not cases:
        raise LayeralignError(f"{file}: has no dialogue with a human turn; download it again")
    return cases


def _first_turn(row: Row, name: str) -> str:
    dialogue = row.text(name)
    human, found, _ = dialogue.removeprefix(_HUMAN).partition(_ASSISTANT)
    if not dialogue.startswith(_HUMAN) or not found:
        raise LayeralignError(
            f"{row.where}: field {name!r} is not a dialogue; "
            r"expected '\n\nHuman: …\n\nAssistant: …' as in HH-RLHF"
        )
    return human.partition(_HUMAN)[0].strip()


HH = Benchmark(
    name="hh-rlhf",
    title="HH-RLHF",
    kind="mixed",
    source="https://huggingface.co/datasets/Anthropic/hh-rlhf",
    licence="MIT",
    revision="09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa",
    files=("harmless-base/{test,train}.jsonl.gz", "helpful-base/{test,train}.jsonl.gz"),
    about=(
        "The first human turn of each dialogue, text only: harmless-base is harmful, helpful-base is benign. "
        "All files that exist are read, and the limit draws a seeded sample of them. Crowd workers wrote the "
        "prompts freely, so some of harmless-base ask nothing harmful."
    ),
    read=_read,
    origin=Hub("Anthropic/hh-rlhf"),
    texts={f"{subset}/{split}.jsonl.gz": 64 for subset in _KINDS for split in _SPLITS},
)
