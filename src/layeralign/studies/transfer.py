"""Does closing one exit open another? One training per exit or group, each scanned at every exit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from layeralign import benchmarks
from layeralign._util import files
from layeralign._util.progress import phase
from layeralign._util.terminal import say
from layeralign._util.text import duration
from layeralign.api import align, compare, load, scan
from layeralign.cases.case import Case
from layeralign.errors import LayeralignError
from layeralign.exits import Exits
from layeralign.report.inputs import gather
from layeralign.report.notebook.runs import Transfer
from layeralign.report.page import page
from layeralign.rewards.reward import Reward, load_reward
from layeralign.sweep.rate import measured
from layeralign.sweep.settings import ScanSettings
from layeralign.training.settings import AlignSettings
from layeralign.training.train import check
from layeralign.vlm.vlm import Vlm

if TYPE_CHECKING:
    from layeralign.cases.rows import Rows
    from layeralign.report.notebook.runs import Scan

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
    model: str | Path,
    cases: str | Path | Rows,
    out: str | Path,
    *,
    test: str | Path | Rows,
    reward: Reward | str | None = None,
    settings: AlignSettings | None = None,
    limit: int | None = None,
    test_limit: int | None = None,
    batch_size: int | None = None,
    **options: Any,
) -> Transfer:
    """Train once per part of the settings' exits, and scan every exit before and after.

    Commas separate the parts (`0,3,early`); `each` stands for every exit by itself. A call that was stopped
    resumes when it is made again.

    Args:
        model: a checkpoint folder, a hub id, or `testbed`; it is loaded anew for each training.
        cases: the training cases, as in `scan`.
        out: folder of the runs, the adapters, transfer.json, and transfer.html with the heat map.
        test: the test cases, as in `scan`.
        reward: as in `align`.
        settings: of every training; see `layeralign.training.settings.AlignSettings`.
        limit: maximum number of training cases.
        test_limit: maximum number of test cases.
        batch_size: largest number of answers generated at once in scans.
        options: of `load`, such as `dtype` and `device_map`.

    Returns:
        Trained exits -> the comparison of the runs before and after.

    Raises:
        LayeralignError: an argument is invalid, or a training collapsed.
    """
    chosen = settings or AlignSettings()
    trained = benchmarks.cases(cases, limit=limit, seed=chosen.seed)
    tested = benchmarks.cases(test, limit=test_limit)
    scorer = load_reward(reward) if isinstance(reward, str) else reward

    def loader(adapter: Path | None) -> Vlm:
        return load(model, adapter=adapter, **options)

    judging = Judging(tested, chosen.max_new_tokens, batch_size)
    return study(loader, trained, Path(out), reward=scorer, settings=chosen, judging=judging)


def study(
    loader: Loader,
    cases: Sequence[Case],
    out: Path,
    *,
    reward: Reward | None,
    settings: AlignSettings,
    judging: Judging,
) -> Transfer:
    """Do what `transfer` says, with a function that loads the model.

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
    open_ = [part for part in trained if not (out / _folder(part) / "run").exists()]
    say(_duration(loader, cases, reward, settings, judging, open_, len(first.exits.all)), stderr=True)
    total = 1 + 2 * len(trained)
    phase(1, total, "scan before")
    before = _scan(first, out / "before", judging, settings)
    date = str(before.identity["decoding"].get("date", ""))  # else runs over midnight cannot be compared
    found = Transfer()
    for at, part in enumerate(trained):
        folder = out / _folder(part)
        phase(2 + 2 * at, total, f"train at exits {part}")
        align(loader(None), cases, folder / "adapter", reward=reward, settings=replace(settings, exits=part))
        phase(3 + 2 * at, total, "scan after")
        after = _scan(loader(folder / "adapter"), folder / "run", judging, settings, date)
        found[part] = compare(before.run, after.run)
        files.write_json(out / "transfer.json", {name: one.to_json() for name, one in found.items()})
    runs = [out / "before", *(out / name / "run" for name in map(_folder, trained))]
    page.write(gather(runs), out / "transfer.html")
    return found


def _duration(
    loader: Loader, cases: Sequence[Case], reward: Reward | None, settings: AlignSettings, judging: Judging,
    trained: Sequence[str], exits: int,
) -> str:  # fmt: skip
    """Return how long all trainings and scans take, from one step of training and four answered cases."""
    if not trained:
        return "transfer: everything is done already"
    model = loader(None)
    rate = measured(model, benchmarks.cases(judging.cases), ScanSettings.of(
        max_new_tokens=judging.max_new_tokens, batch_size=judging.batch_size, background=settings.background,
    ))  # fmt: skip
    start = time.monotonic()
    with TemporaryDirectory() as folder:
        one = replace(settings, exits=trained[0], steps=1)
        align(model, cases, Path(folder) / "adapter", reward=reward, settings=one)
    training = (time.monotonic() - start) * settings.steps * len(trained)
    scans = (len(trained) + 1) * len(judging.cases) * exits / rate
    return (
        f"transfer: {len(trained)} trainings of {settings.steps} steps and {len(trained) + 1} scans of "
        f"{len(judging.cases) * exits:,} answers take about {duration(training + scans)} "
        "(measured on one step and four cases)"
    )


def _folder(part: str) -> str:
    return f"exit-{part.replace(':', '-')}"


def _scan(model: Vlm, out: Path, judging: Judging, settings: AlignSettings, date: str = "") -> Scan:
    asked = benchmarks.cases(judging.cases)
    return scan(
        model,
        asked,
        out,
        max_new_tokens=judging.max_new_tokens,
        batch_size=judging.batch_size,
        background=settings.background,
        date=date or settings.date,
    )
