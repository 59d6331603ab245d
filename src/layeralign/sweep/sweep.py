"""Cases × exits → rows of a run."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from layeralign._util.progress import Progress
from layeralign._util.text import printable
from layeralign.analysis.sequential import Rule
from layeralign.cases import background
from layeralign.cases.case import Case
from layeralign.cases.pictures import on_background
from layeralign.decode import checks
from layeralign.decode.decoding import Decoding
from layeralign.decode.stream import Asked, answers
from layeralign.errors import LayeralignError
from layeralign.exits import ExitSpec
from layeralign.judges.judge import SILENT, Judge, RowJudge
from layeralign.judges.kinds import RULES
from layeralign.judges.registry import judges
from layeralign.runs import store
from layeralign.runs.store import Row, Run
from layeralign.sweep import sequential
from layeralign.sweep.plan import grid, missing
from layeralign.vlm import cost
from layeralign.vlm.identity import identity, versions
from layeralign.vlm.vlm import Vlm


@dataclass(frozen=True)
class Settings:
    """How a scan runs."""

    exits: ExitSpec = "all"
    decoding: Decoding = field(default_factory=Decoding)
    seed: int = 0
    batch_size: int | None = None
    """Most answers that are under way together; by default what memory allows."""
    samples: int = 1
    """Answers to each case at each exit."""
    precision: float | None = None
    """Ask no more than this half-width of the ASR's interval, or a difference to the default, takes."""
    background: str = background.WHITE
    """Colour behind transparent pictures: white, black, or `#rrggbb`."""

    def __post_init__(self) -> None:
        """Check the background."""
        background.parse(self.background)

    def record(self) -> dict[str, Any]:
        """What of these shapes an answer."""
        made = {"decoding": self.decoding.record(), "seed": self.seed}
        return made | background.identity(self.background)

    def on_background(self, cases: Sequence[Case]) -> list[Case]:
        """The cases, with the background behind their pictures."""
        return on_background(cases, background.parse(self.background))


def sweep(vlm: Vlm, cases: Sequence[Case], out: Path, settings: Settings) -> Run:
    """Answer every case at every exit that the run in `out` does not hold yet, then judge.

    Answers are written as they end: stopped at any moment, the same call goes on.

    Returns:
        The open run.

    Raises:
        LayeralignError: `out` holds another run, or a case cannot be put to this model.
    """
    for name, value in (("batch_size", settings.batch_size), ("samples", settings.samples)):
        if value is not None and value < 1:
            raise LayeralignError(f"{name} {value}: expected at least 1")
    if settings.samples > 1 and not settings.decoding.temperature:
        raise LayeralignError(
            f"samples {settings.samples}: greedy answers are all alike; expected 1, or a temperature above 0"
        )
    cases = settings.on_background(cases)
    exits = vlm.exits.parse(settings.exits)
    rule = None if settings.precision is None else Rule(settings.precision, settings.seed)
    if rule:
        sequential.check(rule, cases, settings.samples)
    settings = prepared(vlm, cases, out, settings)
    run = store.create(out, vlm.name, identity(vlm) | settings.record(), vlm.exits.to_json())
    try:
        run.add_config(vlm.checkpoint.config())
        if vlm.adapter:
            if reward := vlm.adapter.reward():
                run.note_reward(reward)
            known = vlm.adapter.trained_on()
            run.note_trained_on(case.id for case in cases if case.asked in known)
        run.add_cost(cost.record(vlm))
        if rule:
            sequential.check_whole(run, cases)
            run.note_sequential(asdict(rule))
        run.add_cases(cases, anew=RULES)
        every = grid(cases, exits, settings.samples)
        rules = [one.load() for one in judges(RULES)]
        judge(run, rules)
        left = missing(run, every)
        if asked := sequential.next_rows(run, rule, cases, exits) if rule else left:
            what = "answers, at most" if rule else "answers"
            with _session(run, what, total=len(every), done=len(every) - len(left)) as at:
                while asked:
                    _answer(vlm, run, asked, settings, at)
                    judge(run, rules)
                    asked = sequential.next_rows(run, rule, cases, exits) if rule else []
    except BaseException:
        run.close()
        raise
    return run


def prepared(vlm: Vlm, cases: Sequence[Case], out: Path, settings: Settings) -> Settings:
    """See that every case can be put to the model, before anything is written; tell what was noticed.

    Returns:
        The settings with the day that the chat template is told: that of the run in `out`, else today.

    Raises:
        LayeralignError: a case cannot be put to the model.
    """
    known = store.identity_in(out).get("decoding", {}).get("date", "")
    today = datetime.now().astimezone().date().isoformat()
    decoding = checks.dated(vlm, settings.decoding, known, today)
    for note in checks.check(vlm, cases, decoding):
        print(printable(f"note: {note}"), file=sys.stderr)
    return replace(settings, decoding=decoding)


@dataclass(frozen=True)
class Session:
    """Where rows that one command adds are booked and counted."""

    number: int
    progress: Progress


@contextmanager
def _session(run: Run, what: str, total: int, done: int) -> Iterator[Session]:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    number = run.add_session(started, shlex.join(sys.argv), versions())
    with Progress(what, total=total, done=done) as progress:
        yield Session(number, progress)


def _answer(vlm: Vlm, run: Run, asked: Sequence[Asked], settings: Settings, at: Session) -> None:
    """Answer what is asked, and put each answer into the run as it ends."""
    start = time.monotonic()
    made = answers(vlm, asked, settings.decoding, seed=settings.seed, batch_size=settings.batch_size)
    for done in made:
        rows = [
            Row(a.case.id, a.exit, a.text, a.tokens, a.finish_reason, a.sample, a.reasoning) for a in done
        ]
        start, began = time.monotonic(), start
        run.add_answers(rows, at.number, start - began)
        at.progress.advance(len(rows))


def judge(
    run: Run, with_judges: Iterable[Judge], *, again: bool = False, retry_invalid: bool = False
) -> None:
    """Let judges have their word on every row that they have none on yet.

    What is judged is kept at once: stopped at any moment, the same call goes on.

    Args:
        run: an open run.
        with_judges: see `layeralign.judges.registry`.
        again: forget what they said before, and judge every row anew.
        retry_invalid: also judge rows anew on which their word was invalid.

    Raises:
        LayeralignError: another judge of the same name has judged here, or an endpoint refuses to be asked.
    """
    cases = {case.id: case for case in run.cases()}
    for one in with_judges:
        run.ask_judge(one.name, again=again)
        run.add_judge(one.name, one.record())
        rows = run.unjudged(one.name, invalid=retry_invalid)
        with Progress(f"judged by {one.name}", len(rows), speaks=not isinstance(one, RowJudge)) as progress:
            for start in range(0, len(rows), one.together):
                some = rows[start : start + one.together]
                words = one.judge_all([(cases[case], answer) for (case, _, _), answer in some])
                said = [(key, word) for (key, _), word in zip(some, words, strict=True) if word != SILENT]
                run.add_verdicts(one.name, said)
                progress.advance(len(some))
        run.end_judge(one.name)
