"""Does closing one exit open another? One training per exit or group, each scanned at every exit."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from layeralign import benchmarks
from layeralign._util import files
from layeralign.analysis.compare import Comparison
from layeralign.api import Scan, align, compare, scan
from layeralign.cases.case import Case
from layeralign.errors import LayeralignError
from layeralign.exits import Exits
from layeralign.report.inputs import gather
from layeralign.report.page import page
from layeralign.rewards.reward import Reward
from layeralign.training.settings import AlignSettings
from layeralign.training.train import check
from layeralign.vlm.vlm import Vlm

Loader = Callable[[Path | None], Vlm]


@dataclass(frozen=True)
class Judging:
    """Test cases and decoding of the scans before and after each training.

    Attributes:
        cases: the test cases.
        max_new_tokens: length limit of an answer, in tokens.
        batch_size: as in `ScanSettings`.
    """

    cases: Sequence[Case]
    max_new_tokens: int = 128
    batch_size: int | None = None


def parts(known: Exits, exits: str) -> list[str]:
    """The exits of each training: the parts of `exits` between commas; `each` stands for every exit.

    Raises:
        LayeralignError: a part is not an exit, or occurs twice.
    """
    named = [part.strip() for part in exits.split(",")]
    found = [name for part in named for name in (map(known.name, known.all) if part == "each" else [part])]
    for part in found:
        known.parse(part)
        if found.count(part) > 1:
            raise LayeralignError(f"exits {exits!r}: {part} is named twice")
    return found


def transfer(
    loader: Loader,
    cases: Sequence[Case],
    out: Path,
    *,
    reward: Reward | None,
    settings: AlignSettings,
    judging: Judging,
) -> dict[str, Comparison]:
    """Train once for each part of `settings.exits`, and scan every exit before and after.

    Results that are already in `out` are not made again, so that a stopped transfer is resumed.

    Args:
        loader: loads the model, given an adapter's folder or None; called for each training and scan.
        cases: the training cases.
        out: folder for the run `before`, a folder of each training, transfer.json and transfer.html.
        reward: as in `align`.
        settings: of every training; `parts` reads its `exits`.
        judging: the test cases, and how they are answered.

    Returns:
        Trained exits -> the comparison of the runs before and after.
    """
    first = loader(None)
    trained = parts(first.exits, settings.exits)
    for part in trained:
        check(first.exits, replace(settings, exits=part).resolved(), reward)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise LayeralignError("transfer: runs in one process only; start it without a launcher")
    before = _scan(first, out / "before", judging, settings)
    found: dict[str, Comparison] = {}
    for part in trained:
        folder = out / _folder(part)
        align(loader(None), cases, folder / "adapter", reward=reward, settings=replace(settings, exits=part))
        after = _scan(loader(folder / "adapter"), folder / "run", judging, settings)
        found[part] = compare(before.run, after.run)
        files.write_json(out / "transfer.json", {name: one.to_json() for name, one in found.items()})
    runs = [out / "before", *(out / name / "run" for name in map(_folder, trained))]
    page.write(gather(runs), out / "transfer.html")
    return found


def _folder(part: str) -> str:
    return f"exit-{part.replace(':', '-')}"


def _scan(model: Vlm, out: Path, judging: Judging, settings: AlignSettings) -> Scan:
    asked = benchmarks.cases(judging.cases)
    return scan(
        model,
        asked,
        out,
        max_new_tokens=judging.max_new_tokens,
        batch_size=judging.batch_size,
        background=settings.background,
    )
