"""The rows of a scan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from layeralign.cases.case import Case
from layeralign.decode.stream import Query
from layeralign.errors import LayeralignError
from layeralign.runs.store import Run

MOST = 50_000_000
"""Most rows of a scan: the list of those that are left has to fit into memory."""


def size(cases: Sequence[Case], exits: Sequence[int], samples: int) -> int:
    """Number of rows of every case at every exit.

    Raises:
        LayeralignError: There are more than `MOST` rows.
    """
    if (rows := len(cases) * len(exits) * samples) > MOST:
        raise LayeralignError(
            f"scan: {rows} answers ({len(cases)} cases, {len(exits)} exits, {samples} samples) are too many; "
            f"expected at most {MOST:,}"
        )
    return rows


def grid(cases: Sequence[Case], exits: Sequence[int], samples: int) -> Iterator[Query]:
    """Every case at every exit, in an efficient order for decoding."""
    return ((case, exit, sample) for case in _ordered(cases) for exit in exits for sample in range(samples))


def missing(run: Run, asked: Iterable[Query]) -> list[Query]:
    """The queries without a row in the run."""
    done = run.answered()
    return [one for one in asked if one[0].id not in done.get(one[1:], ())]


def _ordered(cases: Iterable[Case]) -> list[Case]:
    """Group cases by picture, so that each is encoded once, and sort them by length."""
    by_picture: dict[str, list[Case]] = {}
    for case in cases:
        by_picture.setdefault(case.picture.sha256 if case.picture else "", []).append(case)
    groups = sorted(by_picture.values(), key=lambda group: max(len(c.prompt) for c in group))
    return [case for group in groups for case in sorted(group, key=lambda c: len(c.prompt))]
