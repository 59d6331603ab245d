"""The public benchmarks that can be read, by name."""

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
from layeralign.cases.readers.vqa import VQA
from layeralign.cases.readers.xstest import XSTEST
from layeralign.errors import LayeralignError

__all__ = ["BENCHMARKS", "Benchmark", "benchmarks_of", "read"]

_ALL = (REDTEAM, FULL, MINI, ADVBENCH, pairs.PAIRS, MM, HARMBENCH, VQA, XSTEST, MOSSBENCH, HH)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}
_GRID = re.compile(r"([1-9][0-9]{0,8})x([1-9][0-9]{0,8})", re.ASCII)


def read(name: str, folder: str | Path, limit: int | None = None, seed: int = 0) -> list[Case]:
    """The cases of a public benchmark, from a folder that has its files; nothing is fetched.

    Args:
        name: one of `BENCHMARKS`; `pairs:20x10` names how many prompts and pictures are combined.
        folder: the benchmark's files as they are published.
        limit: at most so many: a seeded sample of jailbreakv-28k, vqa-v2 and hh-rlhf, else the first.
        seed: of samples and of the pairing with pictures.

    Raises:
        LayeralignError: there is no such benchmark, or a file is missing or wrong; the message
            says which, and where it is had.
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
                f"{place}: no such folder; expected one with {', '.join(benchmark.files)}, "
                f"download {benchmark.title} from {benchmark.source}"
            )
        if grid is not None:
            return pairs.grid(place, *grid, limit=limit, seed=seed)
        return benchmark.read(place, limit, seed)
    except LayeralignError as error:
        raise LayeralignError(printable(str(error))) from error  # names of strangers' files are in it
    except (OSError, ValueError) as error:
        raise LayeralignError(printable(f"{place}: cannot be read ({error})")) from error


def benchmarks_of(cases: Iterable[str]) -> tuple[str, ...]:
    """The benchmarks that cases of these ids come from, sorted; empty text for those of none."""
    return tuple(sorted({next((n for n in BENCHMARKS if id.startswith(f"{n}-")), "") for id in cases}))


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
            f"benchmark {printable(name, 60)}: is unknown; expected a plain name, "
            f"or {pairs.PAIRS.name}:20x10 for 20 prompts × 10 pictures"
        )
    return BENCHMARKS[first], (int(grid[1]), int(grid[2]))
