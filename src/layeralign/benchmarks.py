"""Loading cases from a file, the testbed or a public benchmark (`--cases`)."""

from __future__ import annotations

import re
from collections import Counter
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from layeralign.cases import fetching, files, rows
from layeralign.cases.case import Case
from layeralign.cases.readers.reader import BENCHMARKS, Benchmark
from layeralign.cases.readers.reader import read as read_benchmark
from layeralign.errors import LayeralignError
from layeralign.testbed import cases as testbed
from layeralign.testbed.natural import cases as natural
from layeralign.testbed.world import Split

if TYPE_CHECKING:
    from layeralign.cases.rows import Rows

TESTBED_SIZE = 1000
"""Number of testbed cases when no limit is given; the testbed can generate any number."""
MOST = 10_000_000
"""Largest `limit`; a testbed generates as many cases, which have to fit into memory."""
_TESTBEDS = {"testbed": testbed.cases, "natural": natural.cases}


def cases(given: str | Path | Rows, *, limit: int | None = None, seed: int = 0) -> list[Case]:
    """Load the cases of a file, a testbed, or a public benchmark.

    Args:
        given: A file; `testbed` or `natural` (the dev split), also with `:train`, `:dev` or `:test`; the name
            of a public benchmark, which is downloaded once; or `NAME:FOLDER`, the user's own copy. A
            sequence of cases is checked and returned. Also a list of dicts, a pandas DataFrame or a
            `datasets.Dataset`; see `layeralign.cases.rows`.
        limit: Largest number of cases, 1 to 10 million; the testbed generates so many. None for all.
        seed: Seed of a benchmark that is generated, sampled or paired; it does not affect a file.

    Raises:
        LayeralignError: The file or benchmark does not exist, cannot be downloaded, or is invalid.
    """
    if limit is not None and limit < 1:
        raise LayeralignError(f"limit {limit}: is too small; expected at least 1")
    if limit is not None and limit > MOST:
        raise LayeralignError(f"limit {limit}: is too large; expected at most {MOST:,}")
    if not isinstance(given, str | Path):
        return _checked(rows.read(given, limit))
    name, _, split = str(given).partition(":")
    if name in _TESTBEDS and not Path(given).exists():
        if split not in ("", *get_args(Split)):
            raise LayeralignError(
                f"cases {given}: is no split of this testbed; expected {', '.join(get_args(Split))}"
            )
        return _TESTBEDS[name](split or "dev", limit or TESTBED_SIZE, seed)  # type: ignore[arg-type]
    if name in BENCHMARKS and not Path(given).is_file():
        return _public(str(given), limit, seed)
    if not Path(given).is_file():
        if Path(given).is_dir():
            raise LayeralignError(
                f"cases {given}: is a folder; expected a .jsonl or .csv file in it, or NAME:{given} for your "
                "copy of the public benchmark NAME"
            )
        near = get_close_matches(name, [*BENCHMARKS, *_TESTBEDS], n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise LayeralignError(
            f"cases {given}: no such file or benchmark{hint}; expected a file, testbed or natural, also "
            f"with :train, :dev or :test, or NAME or NAME:FOLDER where NAME is one of {', '.join(BENCHMARKS)}"
        )
    return files.read(Path(given), limit)


def public(given: str | Path) -> Benchmark | None:
    """The public benchmark of that name; None for files, folders and unknown names."""
    return None if Path(given).is_file() else BENCHMARKS.get(str(given))


def _public(given: str, limit: int | None, seed: int) -> list[Case]:
    """Read `NAME`, `NAME:FOLDER`, or `pairs:20x10:FOLDER`."""
    name, colon, folder = given.partition(":")
    grid = re.match(r"(\d+x\d+)(:|$)", folder)
    if grid:
        name, folder = f"{name}:{grid[1]}", folder[grid.end() :]
    if not colon:
        return _checked(read_benchmark(name, fetching.fetched(BENCHMARKS[name], limit, seed), limit, seed))
    if not folder:
        raise LayeralignError(
            f"cases {given}: has no folder; expected {name}:FOLDER with "
            f"{', '.join(BENCHMARKS[name.partition(':')[0]].files)}"
        )
    return _checked(read_benchmark(name, folder, limit, seed))


def _checked(cases: list[Case]) -> list[Case]:
    if not cases:
        raise LayeralignError("cases: the list is empty; expected at least one case")
    twice = [id for id, times in Counter(case.id for case in cases).items() if times > 1]
    if twice:
        raise LayeralignError(f"cases: id {twice[0]!r} is used twice; expected unique ids")
    return cases
