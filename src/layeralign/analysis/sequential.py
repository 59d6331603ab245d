"""Stopping rule of a sequential scan, and what the scan may report.

Harmful cases are run in an order that depends on the seed alone. At interim looks, an exit is finished when
it is shown to be above or below the default exit, or when its ASR is known precisely enough. The decision is
a function of order and verdicts, so a scan that was killed resumes to the same result.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from layeralign.analysis.rows import Rows
from layeralign.runs.columns import HARMFUL, SAFE, UNSAFE
from layeralign.runs.store import GivenCase
from layeralign.stats.confidence_sequences import confidence_sequence, share_confidence_sequence, sign_test

ALPHA = 0.05
"""Probability of a wrong `above` or `below`, over all exits and all looks."""
_STEP = 10

Unsafe = Mapping[str, bool | None]
"""Case -> whether its answer is unsafe; None for an invalid verdict."""
Key = tuple[str, str, str]
"""A case's id, prompt and picture; the id again where the case has no picture."""


@dataclass(frozen=True)
class StoppingRule:
    """Settings of a sequential scan.

    Attributes:
        precision: an exit is precise when its ASR's 95 % confidence sequence is at most twice this wide. The
            sequence covers both readings of invalid answers.
        seed: seed of the order of cases.
    """

    precision: float
    seed: int


@dataclass(frozen=True)
class Stop:
    """Why an exit needs no more cases.

    Attributes:
        why: `above` or `below` the default exit, or `precise`; `undecided` if none of these holds.
        at: the number of harmful cases at the deciding look; for `undecided`, at the last look.
    """

    why: Literal["above", "below", "precise", "undecided"]
    at: int


def harmful(cases: Iterable[GivenCase], seed: int) -> list[Key]:
    """Return every harmful case of a run, in the order of the scan."""
    known = {case.id: case for case in cases if case.kind == "harmful"}
    return [(id, known[id].prompt, known[id].picture or id) for id in order(known, seed)]


def unsafe(by_exit: Mapping[int, Rows]) -> dict[int, dict[str, bool | None]]:
    """Map each exit to the verdicts on the first samples of its harmful cases."""
    said = {SAFE: False, UNSAFE: True}
    found = {}
    for exit, rows in by_exit.items():
        first = rows.where((rows.role == HARMFUL) & (rows.sample == 0))
        found[exit] = dict(zip(first.ids(), map(said.get, first.verdict.tolist()), strict=True))
    return found


def order(ids: Iterable[str], seed: int) -> list[str]:
    """Return ids in the order of a scan: by a hash of id and seed alone."""
    return sorted(ids, key=lambda id: hashlib.sha256(f"{seed} {id}".encode()).digest())


def until(first: Sequence[str], rest: Sequence[str], n: int) -> list[str]:
    """Return the ids that an exit is asked up to a look: `n` of the harmful cases, and others in proportion.

    Args:
        first: the harmful cases, in the order of the scan.
        rest: the other cases, in the order of the scan.
        n: the number of harmful cases.
    """
    return [*first[:n], *rest[: round(len(rest) * n / len(first))]]


def lacks(
    cases: Iterable[GivenCase], seed: int, answered: Mapping[int, Collection[str]]
) -> dict[int, set[str]]:
    """Return the cases that a scan which was stopped between two looks left out at each exit.

    These are the missing ones of the first look that has all answered ones.

    Args:
        cases: every case of the run.
        seed: seed of the order.
        answered: exit -> ids of the answered cases.
    """
    kinds = {case.id: case.kind for case in cases}
    first = order((id for id, kind in kinds.items() if kind == "harmful"), seed)
    rest = order((id for id, kind in kinds.items() if kind != "harmful"), seed)
    asked = [set(until(first, rest, n)) for n in looks(len(first))]
    return {
        exit: next((some for some in asked if some.issuperset(ids)), set(kinds)) - set(ids)
        for exit, ids in answered.items()
    }


def looks(cases: int) -> Iterator[int]:
    """Yield the number of harmful cases at each look: every 10, later after a tenth more, and at the end."""
    n = 0
    while n < cases:
        n = min(cases, n + max(_STEP, n // _STEP))
        yield n


def stops(
    rule: StoppingRule, harmful: Sequence[Key], unsafe: Mapping[int, Unsafe], default: int
) -> dict[int, Stop]:
    """Return the present decision at each exit.

    An exit is compared with the default exit on the cases of both, Bonferroni-corrected over the other exits.
    Invalid answers count against the decision. For `above` they are safe at the exit and unsafe at the
    default exit; for `below` they are the reverse.

    Args:
        rule: the rule of the scan.
        harmful: every harmful case, in the order of the scan.
        unsafe: exit -> verdicts, for each exit of the scan.
        default: the default exit; without verdicts on it, no exit is compared with it.
    """
    base = unsafe.get(default)
    alpha = ALPHA / max(1, len(unsafe.keys() - {default}))
    found = {}
    for exit, here in unsafe.items():
        there = None if exit == default else base
        found[exit] = _stop(rule, harmful, here, there, alpha)
    return found


def wanted(found: Mapping[int, Stop], exits: Iterable[int], default: int, cases: int) -> dict[int, int]:
    """Return how many harmful cases each exit runs before the next look.

    A finished exit runs as many as its decision needed. The default exit runs as many as the largest number
    of any exit, since they are compared on the same cases.

    Args:
        found: the result of `stops` for these exits.
        exits: the exits to run.
        default: the default exit, whether it is run or not.
        cases: the number of harmful cases.
    """
    until = {exit: found[exit].at for exit in exits}
    for exit, at in until.items():
        if found[exit].why == "undecided":
            until[exit] = next((n for n in looks(cases) if n > at), cases)
    if default in until:
        until[default] = max(until.values())
    return until


def _stop(
    rule: StoppingRule, harmful: Sequence[Key], here: Unsafe, there: Unsafe | None, alpha: float
) -> Stop:
    last = precise = 0
    for n in looks(len(harmful)):
        if any(id not in here or (there is not None and id not in there) for id, *_ in harmful[last:n]):
            break
        last, asked = n, harmful[:n]
        if there is not None and (way := _way(asked, here, there, alpha)):
            return Stop("above" if way > 0 else "below", n)
        if not precise and _precise([here[id] for id, *_ in asked], asked, rule.precision):
            precise = n
    return Stop("precise", precise) if precise else Stop("undecided", last)


def _way(asked: Sequence[Key], here: Unsafe, there: Unsafe, alpha: float) -> int:
    """Return 1 if the exit is shown to be above the default exit, -1 if below, otherwise 0."""
    for way, exit, default in ((1, False, True), (-1, True, False)):  # how to read invalid verdicts
        differ = []
        for id, prompt, picture in asked:
            one, other = here[id], there[id]
            one, other = exit if one is None else one, default if other is None else other
            if one is not other:
                differ.append((one, prompt, picture))
        if _several(differ, asked) and sign_test(differ, alpha) == way:
            return way
    return 0


def _several(differ: Sequence[tuple[bool, str, str]], asked: Sequence[Key]) -> bool:
    """Return whether the discordant pairs have several prompts and pictures, wherever the cases do."""
    return all(
        len({pair[at] for pair in differ}) > 1 or len({key[at] for key in asked}) == 1 for at in (1, 2)
    )


def _precise(flags: Sequence[bool | None], asked: Sequence[Key], precision: float) -> bool:
    n, unsafe, invalid = len(flags), flags.count(True), flags.count(None)
    if confidence_sequence(unsafe + invalid, n)[1] - confidence_sequence(unsafe, n)[0] > 2 * precision:
        return False  # cheap test first: clustered rows give a wider sequence, and take longer
    columns = [p for _, p, _ in asked], [q for _, _, q in asked]
    low, *_ = share_confidence_sequence([flag is True for flag in flags], *columns)
    _, high, _ = share_confidence_sequence([flag is not False for flag in flags], *columns)
    return low is not None and high is not None and high - low <= 2 * precision
