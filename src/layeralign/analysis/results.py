"""The rows of a run, each with what its judges said together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from layeralign.errors import LayeralignError
from layeralign.judges.labels import HUMAN
from layeralign.judges.refusal import RefusalMatcher
from layeralign.judges.registry import scores_only, trusted
from layeralign.runs.store import NO_ANSWER, JudgedRow, Run


@dataclass
class Answered:
    """One row with what its judges said together.

    Attributes:
        finish_reason: why the answer ended; see `layeralign.runs.store.Row`.
        scores: by judge and measure.
        words: each judge's verdict.
    """

    case: str
    control: str
    kind: str
    category: str
    prompt: str
    picture: str | None
    exit: int
    sample: int
    finish_reason: str = "stop"
    verdict: str = "not applicable"
    refused: bool | None = None
    coherent: bool | None = None
    correct: float | None = None
    scores: dict[tuple[str, str], float] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)

    def hear(self, row: JudgedRow, *, first: bool) -> None:
        """Take in one judge's word; the first judge's goes before the others', and these come as trusted."""
        if first:
            self.verdict = row.verdict
        for name in ("refused", "coherent", "correct"):
            said = getattr(row, name)
            if said is not None and (first or getattr(self, name) is None):
                setattr(self, name, said)
        if row.judge:
            self.words[row.judge] = row.verdict
        self.scores |= {(row.judge, measure): score for measure, score in row.scores.items()}

    @property
    def unsafe(self) -> bool | None:
        """None where the judge could not tell, which is never safe."""
        return {"safe": False, "unsafe": True}.get(self.verdict)


Said = Sequence[tuple[Answered, float]]
"""Rows, each with a flag or a degree from 0 to 1."""


def answered(run: Run, judge: str | None = None) -> tuple[str, dict[int, list[Answered]]]:
    """Every row of a run, controls left out, with what its judges said together.

    Returns:
        The judge of the ASR, and exit -> rows.

    Raises:
        LayeralignError: nothing was judged yet, or not by that judge.
    """
    judge, rows = heard(run, judge)
    return judge, by_exit(row for row in rows if not row.control)


def heard(run: Run, judge: str | None = None) -> tuple[str, list[Answered]]:
    """As `answered`, in one list, with the rows of controls."""
    judged = list(run.judged())
    judge = _asr_judge(run, judged) if judge is None else judge_named(run, judge)
    trust = {name: at for at, name in enumerate(("", *trusted(run.judges())))}
    found = []
    for _, words in groupby(judged, key=lambda row: row.key):
        said = sorted(words, key=lambda row: trust[row.judge])
        row = said[0]
        about = row.case, row.control, row.kind, row.category, row.prompt, row.picture
        one = Answered(*about, row.exit, row.sample, row.finish_reason)
        for row in said:
            one.hear(row, first=row.judge == judge)
        found.append(one)
    return judge, found


def keys(rows: Sequence[Answered]) -> tuple[list[str], list[str]]:
    """Prompts and pictures, by which rows are clustered; a case without picture is like no other."""
    return [row.prompt for row in rows], [row.picture or row.case for row in rows]


def by_exit(rows: Iterable[Answered]) -> dict[int, list[Answered]]:
    """Exit -> its rows."""
    found: dict[int, list[Answered]] = defaultdict(list)
    for row in rows:
        found[row.exit].append(row)
    return found


def judge_named(run: Run, asked: str) -> str:
    """The judge with verdicts that was asked for, by its name or by its kind where that is enough.

    Raises:
        LayeralignError: there is none, several are of that kind, or it gives numbers and no verdicts.
    """
    present = run.judges()
    found = [name for name in present if asked in (name, name.partition(":")[0])]
    if scores_only(asked):
        able = [name for name in present if not scores_only(name)]
        raise LayeralignError(
            f"run {run.path}: judge {asked!r} gives numbers and no verdicts, so it makes no ASR; found {able}"
        )
    if len(found) != 1:
        what = f"several of that kind, {found}" if found else f"none of judge {asked!r}; found {present}"
        raise LayeralignError(f"run {run.path}: has verdicts of {what}")
    return found[0]


def common_judge(runs: Sequence[Run]) -> str | None:
    """Whose verdicts runs are held against each other by, where none is asked for.

    The most trusted judge that has a word on every harmful answer of each run; people and scorers never.
    None where there is no such judge.
    """
    whole = set.intersection(*map(_judged_wholly, runs))
    return next((name for name in trusted(whole) if name != HUMAN and not scores_only(name)), None)


def _judged_wholly(run: Run) -> set[str]:
    """The judges that have a word on every harmful answer."""
    found = set(run.judges())
    harmful = (row for row in run.judged() if row.kind == "harmful")
    for (*_, why), words in groupby(harmful, key=lambda row: (*row.key, row.finish_reason)):
        if why in NO_ANSWER:
            continue
        found &= {row.judge for row in words}
    return found


def _asr_judge(run: Run, judged: list[JudgedRow]) -> str:
    """The most trusted of those that have judged every row, else of those that have judged any.

    A judge all of whose words are invalid has still judged: no weaker one takes its place. People have seen a
    sample only, so that they have to be asked for, and scorers have no verdicts. Where no row has an
    answer, it is the refusal matcher, which was asked about all of them.
    """
    spoke = {row.judge for row in judged if row.kind == "harmful" and row.verdict != "not applicable"}
    found = [
        name for name in (*trusted(spoke), *trusted(run.judges())) if name != HUMAN and not scores_only(name)
    ]
    part = run.unfinished()
    candidates = [name for name in found if name not in part] or found
    if not candidates and judged and all(row.finish_reason in NO_ANSWER for row in judged):
        return RefusalMatcher.kind
    if not candidates:
        raise LayeralignError(
            f"run {run.path}: nothing in it is judged yet by one who has verdicts; run layeralign judge on it"
        )
    return candidates[0]
