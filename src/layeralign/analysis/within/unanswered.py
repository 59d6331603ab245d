"""Rows that a run lacks, rows without an answer, and answers that were cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from layeralign.analysis.rows import Rows, RowsByExit
from layeralign.exits import Exits
from layeralign.runs.columns import FINISH_REASONS, HARMFUL
from layeralign.runs.store import NO_ANSWER


@dataclass(frozen=True)
class Lacking:
    """Cases that are not answered at some exits, or not as often as others, as in a stopped scan.

    Attributes:
        exits: names of these exits.
        most: the largest number of such cases at one exit.
        of: the number of the run's cases.
    """

    exits: tuple[str, ...]
    most: int
    of: int


@dataclass(frozen=True)
class NoAnswer:
    """Rows without an answer, which no judge can score; they count as invalid.

    Attributes:
        reason: `non-finite` (a numerical failure) or `reasoning` (the reasoning ended before an answer).
        exits: names of the exits with such rows.
        rows: the number of such rows, over every kind of case.
        of: the number of all rows at these exits.
    """

    reason: str
    exits: tuple[str, ...]
    rows: int
    of: int


@dataclass(frozen=True)
class Cut:
    """Answers to harmful requests that were cut at the length limit; their continuation was never judged.

    Attributes:
        share: share of all answers to harmful requests, over all exits.
        longest: the length limit, in tokens; 0 where each request has its own, as in a log of `serve`.
        worst: the share at the exit where it is largest.
        exit: the name of that exit.
    """

    share: float
    longest: int
    worst: float = 0.0
    exit: str = ""


def whole(rows: Rows, *, even: bool = True) -> int:
    """Return the number of answered cases; with `even`, of those with as many answers as any other case.

    Of a stopped scan, long answers are missing, and those are rarely refusals.
    """
    answers = np.bincount(rows.case)
    return int((answers == answers.max()).sum() if even else (answers > 0).sum())


def lacking(left: Mapping[int, int], cases: int, exits: Exits) -> Lacking | None:
    """Return which exits lack answers; None where no exit does.

    Args:
        left: exit -> the number of cases that it lacks.
        cases: the number of the run's cases.
        exits: the run's exits.
    """
    where = tuple(exits.name(exit) for exit, n in sorted(left.items()) if n)
    return Lacking(where, max(left.values()), cases) if where else None


def no_answers(rows_at: RowsByExit, exits: Exits) -> tuple[NoAnswer, ...]:
    """Return how many rows have no answer, by reason.

    Args:
        rows_at: exit -> its rows.
        exits: the run's exits.
    """
    found = []
    for reason in reversed(NO_ANSWER):
        code = FINISH_REASONS.index(reason)
        lost = {exit: int((rows.finish == code).sum()) for exit, rows in rows_at.items()}
        where = sorted(exit for exit, n in lost.items() if n)
        if where:
            of = sum(len(rows_at[exit]) for exit in where)
            found.append(NoAnswer(reason, tuple(map(exits.name, where)), sum(lost.values()), of))
    return tuple(found)


def cut(longest: int | None, rows_at: RowsByExit, exits: Exits) -> Cut | None:
    """Return the share of cut answers to harmful requests; None where no answer was cut.

    Args:
        longest: the length limit, in tokens; 0 where each request has its own, None where it is unknown.
        rows_at: exit -> its rows.
        exits: the run's exits.
    """
    harmful = {exit: rows.where(rows.role == HARMFUL) for exit, rows in rows_at.items()}
    length = FINISH_REASONS.index("length")
    short = {exit: int((rows.finish == length).sum()) for exit, rows in harmful.items()}
    if longest is None or not any(short.values()):
        return None
    worst, exit = max((short[exit] / len(rows), -exit) for exit, rows in harmful.items() if len(rows))
    return Cut(sum(short.values()) / sum(map(len, harmful.values())), longest, worst, exits.name(-exit))
