"""RedTeam-2K, JailBreakV-28K and its mini version (Luo et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layeralign.cases.case import Case
from layeralign.cases.origins import Hub
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.shared import folder as folders
from layeralign.cases.readers.shared import strict
from layeralign.cases.readers.shared.pairing import Album, sample
from layeralign.cases.readers.shared.strict import Row

_HUB = Hub("JailbreakV-28K/JailBreakV-28k")
_SOURCE = f"https://huggingface.co/datasets/{_HUB.repo}"
_REVISION = "f949ca582fff13d396ac8fce59596afafb2b78d3"
_FOLDER = "JailBreakV_28K"
_MEND = (
    f"Hugging Face has only 300 of the pictures; request the others from the authors as {_SOURCE} explains, "
    "and put them next to the CSV file"
)
_REDTEAM_COLUMNS = ("id", "question", "policy")
_COLUMNS = ("id", "jailbreak_query", "redteam_query", "format", "policy", "image_path")
_EXTRAS = ("from", "selected_mini", "transfer_from_llm")


def _redteam(folder: Path, limit: int | None, seed: int) -> list[Case]:
    rows = strict.table(_file(folder, REDTEAM), _REDTEAM_COLUMNS)
    taken: dict[str, str] = {}
    cases = [
        Case(
            id=strict.claim(taken, f"{REDTEAM.name}-{row.id('id')}", row.where),
            prompt=row.text("question"),
            kind="harmful",
            category=row.text("policy"),
            facts=_extras(row, ("from",)),
        )
        for row in rows
    ]
    return cases[:limit]


def _full(folder: Path, limit: int | None, seed: int) -> list[Case]:
    return _with_pictures(folder, FULL, limit, seed)


def _mini(folder: Path, limit: int | None, seed: int) -> list[Case]:
    return _with_pictures(folder, MINI, limit, seed)


def _with_pictures(folder: Path, benchmark: Benchmark, limit: int | None, seed: int) -> list[Case]:
    file, chosen = _chosen(folder, benchmark, limit, seed)
    album = Album(file.parent, _MEND)
    return [
        Case(
            id=f"{benchmark.name}-{row.id('id')}",
            prompt=row.text("jailbreak_query"),
            kind="harmful",
            picture=album.picture(row.text("image_path"), row.where),
            category=row.text("policy"),
            facts={
                "format": row.text("format"),
                "redteam_query": row.text("redteam_query"),
                **_extras(row, _EXTRAS),
            },
        )
        for row in chosen
    ]


def _chosen(folder: Path, benchmark: Benchmark, limit: int | None, seed: int) -> tuple[Path, Sequence[Row]]:
    """The file and the selected rows; every row is checked."""
    file = _file(folder, benchmark)
    taken: dict[str, str] = {}
    rows = strict.table(file, _COLUMNS)
    for row in rows:
        strict.claim(taken, row.id("id"), row.where)
        for name in _COLUMNS[1:]:
            row.text(name)
    return file, sample(rows, limit, seed) if benchmark is FULL else rows[:limit]


def _full_shown(folder: Path, limit: int | None, seed: int) -> list[str]:
    return _shown(folder, FULL, limit, seed)


def _mini_shown(folder: Path, limit: int | None, seed: int) -> list[str]:
    return _shown(folder, MINI, limit, seed)


def _shown(folder: Path, benchmark: Benchmark, limit: int | None, seed: int) -> list[str]:
    file, rows = _chosen(folder, benchmark, limit, seed)
    return [f"{file.parent.relative_to(folder).as_posix()}/{row.text('image_path')}" for row in rows]


def _extras(row: Row, names: Sequence[str]) -> dict[str, str]:
    """Optional columns that the file has; the prompt does not need them."""
    return {name: row.text(name, blank=True) for name in names if name in row.fields}


def _file(folder: Path, benchmark: Benchmark) -> Path:
    name = benchmark.files[0].rpartition("/")[2]
    return folders.find(folder, (name, f"{_FOLDER}/{name}"), benchmark)


REDTEAM = Benchmark(
    name="redteam-2k",
    title="RedTeam-2K",
    kind="harmful",
    source=_SOURCE,
    licence="MIT",
    revision=_REVISION,
    files=(f"{_FOLDER}/RedTeam_2K.csv",),
    about="2,000 harmful questions of 16 policies, text only; the limit takes the first rows.",
    read=_redteam,
    origin=_HUB,
    texts={f"{_FOLDER}/RedTeam_2K.csv": 4},
    place="jailbreakv",
)
FULL = Benchmark(
    name="jailbreakv-28k",
    title="JailBreakV-28K",
    kind="harmful",
    source=_SOURCE,
    licence="MIT",
    revision=_REVISION,
    files=(f"{_FOLDER}/JailBreakV_28K.csv", f"{_FOLDER}/<image_path of each row>"),
    about=(
        "28,000 jailbreak prompts, each with its picture; the limit draws a seeded sample. "
        "All but 300 of the pictures have to be requested from the authors."
    ),
    read=_full,
    origin=_HUB,
    texts={f"{_FOLDER}/JailBreakV_28K.csv": 128},
    pictures=_full_shown,
    by_hand="pictures that the hub lacks",
    place="jailbreakv",
)
MINI = Benchmark(
    name="jailbreakv-mini",
    title="mini JailBreakV-28K",
    kind="harmful",
    source=_SOURCE,
    licence="MIT",
    revision=_REVISION,
    files=(f"{_FOLDER}/mini_JailBreakV_28K.csv", f"{_FOLDER}/<image_path of each row>"),
    about=(
        "280 of the 28,000 prompts, chosen by the authors; the limit takes the first rows. "
        "The pictures have to be requested from the authors."
    ),
    read=_mini,
    origin=_HUB,
    texts={f"{_FOLDER}/mini_JailBreakV_28K.csv": 4},
    pictures=_mini_shown,
    by_hand="pictures that the hub lacks",
    place="jailbreakv",
)
