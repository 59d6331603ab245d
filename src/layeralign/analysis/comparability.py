"""Differences between two runs besides the model's weights, and whether the runs can still be compared."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from layeralign._util.text import printable
from layeralign.analysis.results import Results
from layeralign.errors import LayeralignError
from layeralign.judges.kinds import HUMAN

_WEIGHTS = {"adapter", "base", "files", "revision"}
"""Keys of the identity that a comparison is meant to vary."""


@dataclass(frozen=True)
class Difference:
    """A difference between two runs that the caller allowed.

    Attributes:
        name: `cases`, `judges`, `encoder`, or a key of the identity, such as `decoding`.
        what: the difference in words.
    """

    name: str
    what: str


def alike(
    before: Results, after: Results, judges: tuple[str, str], allow: Collection[str] | None = None
) -> tuple[Difference, ...]:
    """Return the allowed differences between two runs, and refuse all other differences.

    Differences in the model's weights are always allowed.

    Args:
        before: the run before the change.
        after: the run after the change.
        judges: the judges whose verdicts make the ASR of `before` and of `after`.
        allow: names of the differences that are allowed; None where the caller offers no such choice.

    Returns:
        The differences, all of them allowed.

    Raises:
        LayeralignError: the runs differ in something else, a run is sequential, or a name in `allow` is
            unknown.
    """
    known = {"cases", "judges", "encoder", *before.identity, *after.identity} - _WEIGHTS
    for name in allow or ():
        if name not in known:
            raise LayeralignError(
                f"allow {printable(repr(name), 60)}: expected what runs can differ in, "
                f"{', '.join(sorted(known))}"
            )
    for run in (before, after):
        if run.sequential:
            raise LayeralignError(
                f"run {run.path}: was scanned with --precision, so its answers decided how many cases it "
                "has; a change is measured on runs that were scanned without"
            )
    found = differences(before, after, judges)
    for one in found:
        if one.name not in (allow or ()):
            others = [other.name for other in found if other.name not in (one.name, *(allow or ()))]
            also = f" (and in {', '.join(others)})" if others else ""
            fix = "; layeralign judge has the same judges judge both" if one.name == "judges" else ""
            flags = f"{f'--judge {HUMAN} ' if HUMAN in judges else ''}--allow {one.name}"
            hint = f"; layeralign compare {flags} compares them anyway and records the difference"
            raise LayeralignError(
                f"runs {before.path} and {after.path}: differ in {one.name}: {one.what}{also}"
                + (fix if HUMAN not in judges else "")
                + ("" if allow is None else hint)
            )
    return found


def differences(before: Results, after: Results, judges: tuple[str, str]) -> tuple[Difference, ...]:
    """Return every difference between two runs except the weights.

    People's labels cover a sample of a run's own answers. They are not an instrument that must be identical,
    so they count only where they make the ASR.
    """
    told = {
        "cases": _cases(_hashes(before), _hashes(after)),
        "judges": _judges(before, after, judges),
        "encoder": _values(before.encoder, after.encoder),
    }
    for key in sorted((before.identity.keys() | after.identity.keys()) - _WEIGHTS):
        told[key] = _values(before.identity.get(key), after.identity.get(key))
    return tuple(Difference(name, what) for name, what in told.items() if what)


def same_cases(before: Results, after: Results) -> set[str]:
    """Return the ids of the cases that both runs have with the same content."""
    old, new = _hashes(before), _hashes(after)
    return {case for case, sha256 in old.items() if new.get(case) == sha256}


def _hashes(run: Results) -> dict[str, str]:
    """Map each case to the hash of its content; controls are left out."""
    known = run.columns.cases
    every = zip(known.id, known.sha256, known.control, strict=True)
    return {id: sha256 for id, sha256, control in every if not control}


def _cases(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    groups = {
        "have another content": [case for case in old if new.get(case, old[case]) != old[case]],
        "are only in the run before": [case for case in old if case not in new],
        "are only in the run after": [case for case in new if case not in old],
    }
    return "; ".join(
        f"{len(cases)} ({printable(repr(cases[0]), 60)}{', ...' if len(cases) > 1 else ''}) {what}"
        for what, cases in groups.items()
        if cases
    )


def _judges(before: Results, after: Results, by: tuple[str, str]) -> str:
    if by[0] != by[1]:
        return f"the ASR is by {by[0]} before and by {by[1]} after"
    old, new = (
        {name: run.judge_records[name] for name in run.judges if name != HUMAN or HUMAN in by}
        for run in (before, after)
    )
    if old.keys() != new.keys():
        alone = sorted(old.keys() ^ new.keys())
        where = "before" if alone[0] in old else "after"
        return f"only the run {where} was judged by {printable(alone[0], 60)}"
    other = [name for name in sorted(old) if old[name] != new[name]]
    if HUMAN in other:
        return "each has labels of its own, and nothing shows that the same people gave both"
    return (
        f"{printable(other[0], 60)} was a different judge (other weights, revision or endpoint)"
        if other
        else ""
    )


def _values(one: Any, other: Any) -> str:
    return "" if one == other else f"{printable(repr(one), 80)} before and {printable(repr(other), 80)} after"
