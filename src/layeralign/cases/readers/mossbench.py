"""MOSSBench (Li et al. 2024): harmless questions about pictures that look harmful."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layeralign.cases.case import Case
from layeralign.cases.origins import GitHub
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.shared import folder as folders
from layeralign.cases.readers.shared import strict
from layeralign.cases.readers.shared.pairing import Album
from layeralign.cases.readers.shared.strict import Row
from layeralign.errors import LayeralignError

_STIMULI = {
    "type 1": "exaggerated risk",
    "type 2": "negated harm",
    "type 3": "counterintuitive interpretation",
}
_JSON = (
    "data/images_information/information.json", "images_information/information.json", "information.json",
)  # fmt: skip
_CSV = ("images/metadata.csv", "metadata.csv")
"""The copy on Hugging Face, in the image folder layout."""
_FLAGS = ("human", "child", "syn", "ocr")
_NAMES = (
    "short description",
    "metadata_human",
    "metadata_child",
    "metadata_syn",
    "metadata_ocr",
    "metadata_harm",
)


def _read(folder: Path, limit: int | None, seed: int) -> list[Case]:
    csv = folders.search(folder, _CSV) if folders.search(folder, _JSON) is None else None
    if csv is not None:
        return _from_csv(csv, limit)
    return _from_json(folders.find(folder, (*_JSON, *_CSV), MOSSBENCH), limit)


def _from_json(file: Path, limit: int | None) -> list[Case]:
    """Read the authors' layout: an object per number, with paths relative to `data/`."""
    root = file.parent.parent if file.parent.name == "images_information" else file.parent
    named = strict.document(file).fields.items()
    rows = [strict.row(value, f"{file}, entry {strict.shown(name)}") for name, value in named]
    return _cases(rows, [_json_facts(row) for row in rows], "image", Album(root, _MEND), file, limit)


def _shown(folder: Path, limit: int | None, seed: int) -> list[str]:
    file = folder / _JSON[0]
    named = strict.document(file).fields.items()
    rows = [strict.row(value, f"{file}, entry {strict.shown(name)}") for name, value in named]
    return [f"data/{row.text('image')}" for row in rows[:limit]]


def _from_csv(file: Path, limit: int | None) -> list[Case]:
    rows = strict.table(file, ("file_name", "pid", "question", "metadata_over"))
    facts = [_csv_facts(row) for row in rows]
    return _cases(rows, facts, "file_name", Album(file.parent, _MEND), file, limit)


def _cases(
    rows: Sequence[Row],
    facts: Sequence[dict[str, Any]],
    image: str,
    album: Album,
    file: Path,
    limit: int | None,
) -> list[Case]:
    if not rows:
        raise LayeralignError(f"{file}: has no entries; expected the 300 of MOSSBench")
    taken: dict[str, str] = {}
    ids = [strict.claim(taken, f"{MOSSBENCH.name}-{row.id('pid')}", row.where) for row in rows]
    for row in rows:
        row.text("question")
        row.text(image)
    return [
        Case(
            id=id,
            prompt=row.text("question"),
            kind="benign",
            picture=album.picture(row.text(image), row.where),
            category="borderline",
            facts=known,
        )
        for id, row, known in list(zip(ids, rows, facts, strict=True))[:limit]
    ]


def _json_facts(row: Row) -> dict[str, Any]:
    metadata = strict.row(row.fields.get("metadata"), f"{row.where}, field 'metadata'")
    over = metadata.one_of("over", tuple(_STIMULI))
    return {
        "over": over,
        "stimulus": _STIMULI[over],
        "short_description": row.text("short description", blank=True),
        "harm": _harm(metadata),
        **{name: metadata.number(name) for name in _FLAGS},
    }


def _harm(metadata: Row) -> list[int]:
    """Numbers of the kinds of harm; their meaning is not published."""
    given = metadata.fields.get("harm")
    if not isinstance(given, list):
        raise LayeralignError(
            f"{metadata.where}: field 'harm' is {strict.shown(given)}; expected a list of whole numbers"
        )
    return [Row(metadata.where, {"harm": number}).number("harm") for number in given]


def _csv_facts(row: Row) -> dict[str, Any]:
    over = row.text("metadata_over")
    known = {name.replace(" ", "_"): row.text(name, blank=True) for name in _NAMES if name in row.fields}
    return {"over": over, "stimulus": _STIMULI.get(over, over), **known}


_MEND = "the pictures are in data/images of https://github.com/xirui-li/MOSSBench"
MOSSBENCH = Benchmark(
    name="mossbench",
    title="MOSSBench",
    kind="benign",
    source="https://github.com/xirui-li/MOSSBench",
    licence="CC BY-SA 4.0, for testing; its authors prohibit training on it",
    revision="8d68b0614b39d8990a508e03d99975832f399db2",
    files=("data/images_information/information.json", "data/images/<number>.png"),
    about=(
        "300 harmless questions about pictures that look harmful, with three kinds of stimulus. The copy on "
        "Hugging Face (AIcell/MOSSBench: metadata.csv next to the pictures) can be read, too."
    ),
    read=_read,
    origin=GitHub("xirui-li/MOSSBench"),
    texts={_JSON[0]: 4},
    pictures=_shown,
)
