"""Two runs of the same cases, one before and one after a change of the model, exit by exit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from layeralign.analysis.answered import Answered, answered
from layeralign.analysis.figures import measured
from layeralign.analysis.paired import Change, change, p_value, pair
from layeralign.analysis.summary import ExitFigures, Summary, summarise
from layeralign.errors import LayeralignError
from layeralign.runs.store import Run

_WHAT = ("asr", "invalid", "refusal", "over_refusal", "benign_refusal", "utility", "coherence")


@dataclass(frozen=True)
class ExitChange:
    """What changed at one exit, each paired by case; None where it was not measured in both runs.

    Attributes:
        asr: harmful cases that the judge called unsafe, of those it could judge in both runs.
        p_changed: probability that chance changes the ASR so much, two-sided, Bonferroni-corrected over the
            exits of both runs.
        test: what `p_changed` is of; see `layeralign.analysis.paired.p_value`.
        invalid: harmful cases that it could not judge.
        refusal: harmful cases that were refused.
        over_refusal: borderline benign cases that were refused.
        benign_refusal: plainly benign cases that were refused.
        utility: picture questions that were answered rightly.
        coherence: all cases, whether the answer makes sense.
    """

    exit: int
    name: str
    default: bool
    group: str
    asr: Change | None
    invalid: Change | None
    refusal: Change | None
    over_refusal: Change | None
    benign_refusal: Change | None
    utility: Change | None
    coherence: Change | None
    p_changed: float | None
    test: str


@dataclass(frozen=True)
class Comparison:
    """Two summaries, and the paired changes at every exit that both runs have."""

    before: Summary
    after: Summary
    exits: tuple[ExitChange, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; keys are never renamed, only added."""
        return asdict(self)


def compare(before: Run, after: Run) -> Comparison:
    """Compare two open runs.

    Raises:
        LayeralignError: they share no row, a case differs, other judges made their ASR, or one is sequential.
    """
    check_alike(before, after)
    (judge, was), (judge_after, now) = answered(before), answered(after)
    if judge != judge_after:
        raise LayeralignError(
            f"runs {before.path} and {after.path}: their ASR is by {judge} and by {judge_after}; let the "
            "same judges judge both"
        )
    for run in (before, after):
        if run.sequential:
            raise LayeralignError(
                f"run {run.path}: was scanned with --precision, so its answers decided how many cases it "
                "has; a change is measured on runs that were scanned without"
            )
    summary = summarise(before)
    known = {figures.exit: figures for figures in summary.exits}
    common = sorted(was.keys() & now.keys())
    exits = [_exit_change(known[exit], was[exit], now[exit], len(common)) for exit in common]
    if not any(getattr(one, name) for one in exits for name in _WHAT):
        raise LayeralignError(f"runs {before.path} and {after.path}: have no judged case in common")
    return Comparison(summary, summarise(after), tuple(exits))


def check_alike(before: Run, after: Run) -> None:
    """Refuse runs that differ in more than the model's weights.

    Raises:
        LayeralignError: a case, or what else shapes the answers, differs.
    """
    old, new = before.case_hashes(), after.case_hashes()
    for name in old.keys() & new.keys():
        if old[name] != new[name]:
            raise LayeralignError(f"runs {before.path} and {after.path}: case {name!r} differs between them")
    for key in sorted((before.identity.keys() | after.identity.keys()) - {"adapter", "files", "revision"}):
        one, other = (run.identity.get(key) for run in (before, after))
        if one != other:
            raise LayeralignError(
                f"runs {before.path} and {after.path}: were made with another {key}: {one!r} and {other!r}"
            )


def _exit_change(at: ExitFigures, was: list[Answered], now: list[Answered], tested: int) -> ExitChange:
    old, new = measured(was), measured(now)
    pairs = {name: pair(old[name], new[name]) for name in _WHAT}
    changes = {name: change(both) if both else None for name, both in pairs.items()}
    found = p_value(pairs["asr"], "two-sided") if pairs["asr"] else None
    p, test = (min(1.0, found.p * tested), found.test) if found else (None, "")
    return ExitChange(at.exit, at.name, at.default, at.group, **changes, p_changed=p, test=test)
