"""HarmBench's multimodal behaviours (Mazeika et al. 2024), each about a picture of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layeralign.cases.readers import harmbench
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.shared import folder as folders
from layeralign.cases.readers.shared import strict
from layeralign.cases.readers.shared.pictured import Draft, lister, reader
from layeralign.cases.readers.shared.strict import Row

_FILE = "harmbench_behaviors_multimodal_all.csv"
_PUBLISHED = f"data/behavior_datasets/{_FILE}"
_COLUMNS = ("Behavior", "FunctionalCategory", "SemanticCategory", "BehaviorID", "ImageFileName")
_PICTURES = ("data/multimodal_behavior_images", "multimodal_behavior_images")


def _drafts(folder: Path) -> tuple[str, Sequence[Draft]]:
    rows = strict.table(folders.find(folder, (_PUBLISHED, _FILE), HARMBENCH_MULTIMODAL), _COLUMNS)
    root = folders.either(folder, _PICTURES)
    return root, [_case(row, folder / root) for row in rows]


def _case(row: Row, pictures: Path) -> Draft:
    """A public loader says that all pictures are stored as .png, whatever the row says."""
    row.one_of("FunctionalCategory", ("multimodal",))
    named = row.text("ImageFileName")
    stored = f"{named.rpartition('.')[0] or named}.png"
    return Draft(
        where=row.where,
        id=f"{HARMBENCH_MULTIMODAL.name}-{row.id('BehaviorID')}",
        prompt=row.text("Behavior"),
        kind="harmful",
        picture=named if folders.search(pictures, (named,)) else stored,
        category=row.text("SemanticCategory"),
    )


HARMBENCH_MULTIMODAL = Benchmark(
    name="harmbench-multimodal",
    title="HarmBench (multimodal behaviours)",
    kind="harmful",
    source=f"https://github.com/centerforaisafety/HarmBench ({_PUBLISHED})",
    licence="MIT",
    revision=harmbench.HARMBENCH.revision,
    files=(_PUBLISHED, f"{_PICTURES[0]}/<ImageFileName>"),
    about="110 behaviours, each with the authors' picture.",
    read=reader(_drafts, f"the pictures are in {_PICTURES[0]} of HarmBench's repository"),
    origin=harmbench.HARMBENCH.origin,
    texts={_PUBLISHED: 4},
    pictures=lister(_drafts),
    place="harmbench",
)
