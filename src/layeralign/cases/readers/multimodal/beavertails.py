"""BeaverTails-V (Ji et al. 2025), evaluation split: harmful questions about pictures of 20 kinds of harm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layeralign.cases.origins import Hub
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.shared import folder as folders
from layeralign.cases.readers.shared import packed
from layeralign.cases.readers.shared.pictured import Draft, reader

_HUB = Hub("PKU-Alignment/BeaverTails-V")
_KINDS = (
    "animal_abuse", "dangerous_behavior", "deception_in_personal_relationships", "discriminatory_depictions",
    "environmental_damage", "false_information", "financial_and_academic_fraud", "hacking_or_digital_crime",
    "harmful_health_content", "horror_and_gore", "identity_misuse_and_impersonation",
    "insulting_and_harassing_behavior", "pornographic_content", "privacy_invasion_and_surveillance",
    "psychological_harm_and_manipulation", "psychological_horror_and_dark_themes",
    "sensitive_information_in_key_areas", "sexual_crimes", "terrorism_or_extremism",
    "violence_and_physical_harm",
)  # fmt: skip
_FILES = {kind: f"data/{kind}/evaluation.parquet" for kind in _KINDS}


def _drafts(folder: Path) -> tuple[str, Sequence[Draft]]:
    """Every kind of harm whose file exists; a question has a row per response, and is asked once."""
    folders.find(folder, tuple(_FILES.values()), BEAVERTAILS_V)
    found: dict[tuple[str, bytes], Draft] = {}
    for kind, name in _FILES.items():
        if folders.search(folder, (name,)):
            for number, row in enumerate(packed.records(folder / name, ("question", "image", "category"))):
                prompt, picture = row.text("question"), packed.content(row, "image")
                id, category = f"{BEAVERTAILS_V.name}-{kind}-{number}", row.text("category")
                one = Draft(row.where, id, prompt, "harmful", picture, category)
                found.setdefault((prompt, picture), one)
    return "", list(found.values())


BEAVERTAILS_V = Benchmark(
    name="beavertails-v",
    title="BeaverTails-V (evaluation)",
    kind="harmful",
    source=f"https://huggingface.co/datasets/{_HUB.repo}",
    licence="CC BY-NC 4.0",
    revision=None,
    files=("data/<kind of harm>/evaluation.parquet",),
    about=(
        "About 590 questions with generated pictures, 20 kinds of harm. Reading needs layeralign[parquet]; "
        "the pictures are unpacked into the cache."
    ),
    read=reader(_drafts, ""),
    origin=_HUB,
    texts=dict.fromkeys(_FILES.values(), 64),
)
