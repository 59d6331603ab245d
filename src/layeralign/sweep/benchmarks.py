"""From what `--cases` says to cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from layeralign.cases import files
from layeralign.cases.case import Case
from layeralign.errors import LayeralignError
from layeralign.testbed import cases as testbed
from layeralign.testbed.world import Split

TESTBED_SIZE = 1000
"""Cases of the testbed when no limit is given; it has as many as one asks for."""


def cases(given: str | Path | Sequence[Case], *, limit: int | None = None, seed: int = 0) -> list[Case]:
    """The cases of a JSONL file, or of a benchmark that ships with layeralign.

    Args:
        given: a file, or `testbed` (its dev split), `testbed:train`, `testbed:dev`, `testbed:test`.
        limit: take only the first so many; the testbed makes just so many.
        seed: of a benchmark that is drawn; a file does not depend on it.

    Raises:
        LayeralignError: there is no such file or benchmark, or its content is wrong.
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
    if not Path(given).is_file():
        raise LayeralignError(
            f"cases {given}: no such file, and not a benchmark either "
            "(testbed, testbed:train, testbed:dev, testbed:test)"
        )
    return files.read(Path(given), limit)


def _checked(cases: list[Case]) -> list[Case]:
    if not cases:
        raise LayeralignError("cases: none were given")
    twice = [id for id, times in Counter(case.id for case in cases).items() if times > 1]
    if twice:
        raise LayeralignError(f"cases: id {twice[0]!r} is used twice")
    return cases
