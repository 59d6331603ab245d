"""From what `--cases` says to cases."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from layeralign.cases import fetching, files
from layeralign.cases.case import Case
from layeralign.cases.readers.reader import BENCHMARKS, Benchmark
from layeralign.cases.readers.reader import read as read_benchmark
from layeralign.errors import LayeralignError
from layeralign.testbed import cases as testbed
from layeralign.testbed.world import Split

TESTBED_SIZE = 1000
"""Cases of the testbed when no limit is given; it has as many as one asks for."""


def cases(given: str | Path | Sequence[Case], *, limit: int | None = None, seed: int = 0) -> list[Case]:
    """The cases of a JSONL file, of the testbed, or of a public benchmark.

    Args:
        given: a file; `testbed` (its dev split), `testbed:train`, `testbed:dev`, `testbed:test`; the name
            of a public benchmark, which is fetched once; or `NAME:FOLDER`, a copy of the user's own.
        limit: take only the first so many; the testbed makes just so many.
        seed: of a benchmark that is drawn, sampled or paired; a file does not depend on it.

    Raises:
        LayeralignError: there is no such file or benchmark, it cannot be fetched, or its content is wrong.
    """
    if limit is not None and limit < 1:
        raise LayeralignError(f"limit {limit}: expected at least 1")
    if not isinstance(given, str | Path):
        return _checked(list(given)[:limit])
    name, _, split = str(given).partition(":")
    if name == "testbed" and not Path(given).exists():
        if split not in ("", *get_args(Split)):
            raise LayeralignError(f"cases {given}: the testbed's splits are {', '.join(get_args(Split))}")
        return testbed.cases(split or "dev", limit or TESTBED_SIZE, seed)  # type: ignore[arg-type]
    if name in BENCHMARKS and not Path(given).is_file():
        return _public(str(given), limit, seed)
    if not Path(given).is_file():
        raise LayeralignError(
            f"cases {given}: no such file, and not a benchmark either (testbed, testbed:train, testbed:dev, "
            f"testbed:test, or NAME or NAME:FOLDER with a NAME of {', '.join(BENCHMARKS)})"
        )
    return files.read(Path(given), limit)


def public(given: str | Path) -> Benchmark | None:
    """The benchmark that is meant by its name alone, and so is kept in the cache."""
    return None if Path(given).is_file() else BENCHMARKS.get(str(given))


def _public(given: str, limit: int | None, seed: int) -> list[Case]:
    """`NAME`, `NAME:FOLDER`, or `pairs:20x10:FOLDER`."""
    name, colon, folder = given.partition(":")
    grid = re.match(r"(\d+x\d+)(:|$)", folder)
    if grid:
        name, folder = f"{name}:{grid[1]}", folder[grid.end() :]
    if not colon:
        return _checked(read_benchmark(name, fetching.fetched(BENCHMARKS[name], limit, seed), limit, seed))
    if not folder:
        raise LayeralignError(
            f"cases {given}: names no folder; expected {name}:FOLDER with "
            f"{', '.join(BENCHMARKS[name.partition(':')[0]].files)}"
        )
    return _checked(read_benchmark(name, folder, limit, seed))


def _checked(cases: list[Case]) -> list[Case]:
    if not cases:
        raise LayeralignError("cases: none were given")
    twice = [id for id, times in Counter(case.id for case in cases).items() if times > 1]
    if twice:
        raise LayeralignError(f"cases: id {twice[0]!r} is used twice")
    return cases
