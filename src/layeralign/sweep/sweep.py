"""Scan: answer cases at exits, and judge the answers."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from layeralign._util.progress import Progress
from layeralign._util.text import printable
from layeralign.analysis.sequential import StoppingRule
from layeralign.cases.case import Case
from layeralign.decode import checks
from layeralign.decode.decoding import Answer, Decoding
from layeralign.decode.stream import Query, answers
from layeralign.errors import LayeralignError
from layeralign.judges.judge import SILENT, Judge, RowJudge
from layeralign.judges.kinds import READ_FACTS, RULES
from layeralign.judges.registry import judges
from layeralign.runs import opening
from layeralign.runs.store import Row, Run
from layeralign.sweep import sequential
from layeralign.sweep.pictures import with_pictures
from layeralign.sweep.plan import grid, missing, size
from layeralign.sweep.settings import ScanSettings
from layeralign.vlm import cost
from layeralign.vlm.identity import identity, versions
from layeralign.vlm.vlm import Vlm

WORKERS = "workers"
"""Name of the number of workers among the versions of a session; absent for one."""


class Changed(LayeralignError):
    """An engine was changed while it answered."""


class Engine:
    """Answers the queries of a scan: with the model of this process; subclasses do it elsewhere.

    Attributes:
        workers: number of workers that share the queries.
    """

    workers = 1

    def __init__(self, vlm: Vlm) -> None:
        self.vlm = vlm

    def record(self) -> dict[str, Any]:
        """What identifies another engine than this one, for a run's identity."""
        return {}

    def check(self, cases: Sequence[Case], decoding: Decoding) -> None:
        """Check that it answers as the model would, before anything is written.

        Raises:
            LayeralignError: It does not.
        """

    def answers(self, asked: Sequence[Query], settings: ScanSettings) -> Iterator[list[Row]]:
        """Answer queries; yields rows as they end.

        Raises:
            Changed: It is no longer the engine of the first answer.
        """
        made = answers(self.vlm, asked, settings.decoding, seed=settings.seed, batch_size=settings.batch_size)
        for done in made:
            yield rows(done)


def sweep(
    vlm: Vlm,
    cases: Sequence[Case],
    out: Path,
    settings: ScanSettings,
    engine: Engine | None = None,
) -> Run:
    """Answer every case at every exit that is missing in the run in `out`, then judge the answers by rules.

    Each answer is stored as soon as it ends, so an interrupted scan resumes with the same call.

    Args:
        vlm: The model.
        cases: The cases.
        out: The run's folder.
        settings: The scan's settings.
        engine: Answers the queries; by default `vlm` does in this process.

    Returns:
        The open run.

    Raises:
        LayeralignError: `out` has another run, or the model cannot be asked a case.
    """
    cases = settings.on_background(cases)
    exits = vlm.exits.parse(settings.exits)
    rule = None if settings.precision is None else StoppingRule(settings.precision, settings.seed)
    if rule:
        sequential.check(rule, cases, settings.samples)
    settings = prepared(vlm, cases, out, settings)
    every = size(cases, exits, settings.samples)
    engine = engine or Engine(vlm)
    engine.check(cases, settings.decoding)
    run = begin(vlm, out, settings.record() | engine.record())
    try:
        if vlm.adapter:
            known = vlm.adapter.trained_on()
            run.note_trained_on(case.id for case in cases if case.asked in known)
        if rule:
            sequential.check_whole(run, cases)
            run.note_sequential(asdict(rule))
        known_cases = {case.id for case in run.given()}
        run.add_cases(cases, anew=READ_FACTS)
        run.note_asked(exits)
        if added := len({case.id for case in cases} - known_cases) if known_cases else 0:
            print(
                printable(f"note: adds {added} cases to the {len(known_cases)} of run {out}"), file=sys.stderr
            )
        rules = [one.load() for one in judges(RULES)]
        judge(run, rules)
        left = missing(run, grid(cases, exits, settings.samples))
        if asked := sequential.next_rows(run, rule, cases, exits) if rule else left:
            what = "answers, at most" if rule else "answers"
            with _session(run, what, engine.workers, total=every, done=every - len(left)) as at:
                while asked:
                    _store(engine.answers(asked, settings), run, at)
                    judge(run, rules)
                    asked = sequential.next_rows(run, rule, cases, exits) if rule else []
    except BaseException as error:
        if isinstance(error, Changed):
            run.note_changed(str(error))
        run.__exit__(type(error), error, None)  # a damaged run gets no hash
        raise
    return run


def begin(vlm: Vlm, out: Path, settings: dict[str, Any]) -> Run:
    """Create a run of a model, or open it for writing; note the model's config, reward and cost.

    Args:
        vlm: The model.
        out: The run's folder.
        settings: The part of the run's identity besides the model.

    Raises:
        LayeralignError: `out` has another run, or one whose engine was changed while it answered.
    """
    run = opening.create(out, vlm.name, identity(vlm) | settings, vlm.exits.to_json())
    try:
        if changed := run.noted().get("changed"):
            raise LayeralignError(f"run {out}: {changed['why']}")
        run.add_config(vlm.checkpoint.config())
        if vlm.adapter and (reward := vlm.adapter.reward()):
            run.note_reward(reward)
        run.add_cost(cost.record(vlm))
    except BaseException as error:
        run.__exit__(type(error), error, None)  # a damaged run gets no hash
        raise
    return run


def prepared(vlm: Vlm, cases: Sequence[Case], out: Path, settings: ScanSettings) -> ScanSettings:
    """Check that the model can be asked every case, before anything is written; print notes to stderr.

    Returns:
        The settings with the date for the chat template: the date of the run in `out`, else today's.

    Raises:
        LayeralignError: The model cannot be asked a case.
    """
    known = opening.identity_in(out).get("decoding", {}).get("date", "")
    today = time.strftime("%Y-%m-%d")
    decoding = checks.dated(vlm, settings.decoding, known, today)
    for note in checks.check(vlm, cases, decoding):
        print(printable(f"note: {note}"), file=sys.stderr)
    return replace(settings, decoding=decoding)


@dataclass(frozen=True)
class Session:
    """A command's session in the run, with its progress bar."""

    number: int
    progress: Progress


@contextmanager
def _session(run: Run, what: str, workers: int, total: int, done: int) -> Iterator[Session]:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    about = versions() | ({WORKERS: str(workers)} if workers > 1 else {})
    number = run.add_session(started, shlex.join(sys.argv), about)
    with Progress(what, total=total, done=done) as progress:
        yield Session(number, progress)


def rows(answers: Iterable[Answer]) -> list[Row]:
    """Answers as rows of a run."""
    return [Row(a.case.id, a.exit, a.text, a.tokens, a.finish_reason, a.sample, a.reasoning) for a in answers]


def _store(made: Iterable[list[Row]], run: Run, at: Session) -> None:
    """Store rows in the run as they come."""
    start = time.monotonic()
    for rows in made:
        start, began = time.monotonic(), start
        run.add_answers(rows, at.number, start - began)
        at.progress.advance(len(rows))


def judge(
    run: Run, with_judges: Iterable[Judge], *, again: bool = False, retry_invalid: bool = False
) -> None:
    """Judge every row that has no verdict of these judges.

    Verdicts are stored in batches, so an interrupted call resumes with the same call.

    Args:
        run: An open run.
        with_judges: Judges; see `layeralign.judges.registry`.
        again: Whether to delete their earlier verdicts and judge every row.
        retry_invalid: Whether to judge rows with invalid verdicts again.

    Raises:
        LayeralignError: A different judge of the same name has judged this run, or an endpoint refuses
            access.
    """
    bare = {case.id: case for case in run.cases()}
    for one in with_judges:
        cases = with_pictures(run) if one.sees else bare
        run.ask_judge(one.name, again=again)
        run.add_judge(one.name, one.record())
        left = run.count_unjudged(one.name, invalid=retry_invalid)
        ask = partial(run.unjudged, one.name, invalid=retry_invalid, limit=one.together)
        with Progress(f"judged by {one.name}", left, speaks=not isinstance(one, RowJudge)) as progress:
            some = ask()
            while some:
                judged = one.judge_all([(cases[case], answer) for (case, _, _), answer in some])
                found = [
                    (key, verdict)
                    for (key, _), verdict in zip(some, judged, strict=True)
                    if verdict != SILENT
                ]
                run.add_verdicts(one.name, found)
                progress.advance(len(some))
                some = ask(after=some[-1][0])
        run.end_judge(one.name)
