"""Reading a public benchmark by name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from layeralign._util.text import printable
from layeralign.cases.case import Case
from layeralign.cases.readers import pairs
from layeralign.cases.readers.advbench import ADVBENCH
from layeralign.cases.readers.benchmark import Benchmark
from layeralign.cases.readers.harmbench import HARMBENCH
from layeralign.cases.readers.hh_rlhf import HH
from layeralign.cases.readers.jailbreakv import FULL, MINI, REDTEAM
from layeralign.cases.readers.mm_safetybench import MM
from layeralign.cases.readers.mossbench import MOSSBENCH
from layeralign.cases.readers.multimodal.beavertails import BEAVERTAILS_V
from layeralign.cases.readers.multimodal.figstep import FIGSTEP
from layeralign.cases.readers.multimodal.harmbench import HARMBENCH_MULTIMODAL
from layeralign.cases.readers.multimodal.holisafe import HOLISAFE
from layeralign.cases.readers.multimodal.msts import MSTS
from layeralign.cases.readers.multimodal.siuo import SIUO
from layeralign.cases.readers.multimodal.vlguard import VLGUARD
from layeralign.cases.readers.strongreject import STRONGREJECT
from layeralign.cases.readers.utility.mmmu import MMMU
from layeralign.cases.readers.utility.pope import POPE
from layeralign.cases.readers.vqa import VQA
from layeralign.cases.readers.xstest import XSTEST
from layeralign.errors import LayeralignError

__all__ = ["BENCHMARKS", "Benchmark", "benchmarks_of", "read"]

_ALL = (
    REDTEAM, FULL, MINI, ADVBENCH, pairs.PAIRS, MM, HARMBENCH, VQA, XSTEST, MOSSBENCH, HH,
    VLGUARD, HOLISAFE, MSTS, SIUO, STRONGREJECT, FIGSTEP, HARMBENCH_MULTIMODAL, BEAVERTAILS_V,
    POPE, MMMU,
)  # fmt: skip
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}
_GRID = re.compile(r"([1-9][0-9]{0,8})x([1-9][0-9]{0,8})", re.ASCII)


def read(name: str, folder: str | Path, limit: int | None = None, seed: int = 0) -> list[Case]:
    """Read the cases of a public benchmark from a folder; nothing is downloaded.

    Args:
        name: A name in `BENCHMARKS`; `pairs:20x10` combines 20 prompts with 10 pictures.
        folder: Folder with the benchmark's files, as published.
        limit: Largest number of cases, 1 or more: a seeded sample for jailbreakv-28k, vqa-v2, hh-rlhf,
            pope and mmmu, the first cases for others. None for all.
        seed: Seed of samples and of the pairing with pictures, 0 or more.

    Raises:
        LayeralignError: The benchmark is unknown, or a file is missing or invalid; the message says which
            file and where to get it.
    """
    benchmark, grid = _named(name)
    if limit is not None and limit < 1:
        raise LayeralignError(f"benchmark {name}: limit {limit} is too small; expected at least 1")
    if seed < 0:
        raise LayeralignError(f"benchmark {name}: seed {seed} is negative; expected 0 or more")
    place = Path(folder)
    try:
        if not place.is_dir():
            raise LayeralignError(
                f"{place}: no such folder; expected one with {', '.join(benchmark.files)}; "
                f"download {benchmark.title} from {benchmark.source}"
            )
        if grid is not None:
            return pairs.grid(place, *grid, limit=limit, seed=seed)
        return benchmark.read(place, limit, seed)
    except LayeralignError as error:
        raise LayeralignError(printable(str(error))) from error  # it may contain untrusted file names
    except (OSError, ValueError) as error:
        raise LayeralignError(printable(f"{place}: cannot be read ({error})")) from error


def benchmarks_of(cases: Iterable[str]) -> tuple[str, ...]:
    """Names of the benchmarks that these case ids belong to, sorted; `""` for ids of no benchmark."""
    return tuple(
        sorted({max((n for n in BENCHMARKS if id.startswith(f"{n}-")), key=len, default="") for id in cases})
    )


def _named(name: str) -> tuple[Benchmark, tuple[int, int] | None]:
    first, colon, wanted = name.partition(":")
    if first not in BENCHMARKS:
        raise LayeralignError(
            f"benchmark {printable(name, 60)}: is unknown; expected {', '.join(BENCHMARKS)}"
        )
    if not colon:
        return BENCHMARKS[first], None
    grid = _GRID.fullmatch(wanted)
    if first != pairs.PAIRS.name or grid is None:
        raise LayeralignError(
            f"benchmark {printable(name, 60)}: is unknown; expected a name without ':', "
            f"or {pairs.PAIRS.name}:20x10 for 20 prompts × 10 pictures"
        )
    return BENCHMARKS[first], (int(grid[1]), int(grid[2]))
