"""Every exchange as a row of a run, written by a thread of its own."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from layeralign.decode.decoding import Decoding
from layeralign.judges.kinds import RULES
from layeralign.judges.registry import judges
from layeralign.runs.store import Row, Run
from layeralign.serving.limits import Refused
from layeralign.serving.scheduler import End, Job
from layeralign.sweep.sweep import begin, judge
from layeralign.vlm.identity import versions
from layeralign.vlm.vlm import Vlm

SERVED = "each request's own settings are in its case's facts"
"""An entry of the identity, so that a log and a scan never become one run."""


class Log:
    """A run that grows by each exchange; an answer is told when it is stored."""

    def __init__(
        self, vlm: Vlm, folder: Path, decoding: Decoding, engine: Mapping[str, Any] | None = None
    ) -> None:
        """Create the run in `folder`, or open it to add to it.

        Args:
            vlm: The model.
            folder: The run's folder.
            decoding: The server's settings.
            engine: What identifies another engine than this process.

        Raises:
            LayeralignError: `folder` has another run or other files.
        """
        self.failed, self._changed = False, ""
        identity = {"decoding": decoding.record(), "served": SERVED}
        identity |= {"engine": dict(engine)} if engine else {}
        self._given: SimpleQueue[tuple[Job, End] | None] = SimpleQueue()
        opened: Future[None] = Future()
        self._thread = Thread(target=self._work, args=(vlm, folder, identity, opened), name="log")
        self._thread.start()
        try:
            opened.result()
        except BaseException:  # also a signal, else the thread would wait for ever
            self.close()
            raise

    def add(self, job: Job, end: End) -> None:
        """Store an answer, then tell it."""
        self._given.put((job, end))

    def close(self, changed: str = "") -> None:
        """Store what is left, judge it by rules as a scan does, and close the run.

        Args:
            changed: See `Run.note_changed`.
        """
        self._changed = changed
        self._given.put(None)
        self._thread.join()

    def _work(self, vlm: Vlm, folder: Path, identity: dict[str, Any], opened: Future[None]) -> None:
        try:  # an SQLite connection belongs to the thread that opened it
            with begin(vlm, folder, identity) as run:
                started = datetime.now(UTC).isoformat(timespec="seconds")
                number = run.add_session(started, shlex.join(sys.argv), versions())
                trained = vlm.adapter.trained_on() if vlm.adapter else frozenset()
                samples = Counter((case, exit) for (exit, _), ids in run.answered().items() for case in ids)
                known = set(run.case_hashes())
                opened.set_result(None)
                self._follow(run, number, trained, samples, known)
                if self._changed:
                    run.note_changed(self._changed)
                if not self.failed:
                    judge(run, [one.load() for one in judges(RULES)])
        except BaseException as error:  # the run is damaged; or the disk is full at the end
            if opened.done():
                self._fail(error)
            else:
                opened.set_exception(error)

    def _fail(self, error: BaseException) -> None:
        if not self.failed:
            print(f"layeralign: serve: the log cannot be written ({error})", file=sys.stderr)
        self.failed = True

    def _follow(
        self, run: Run, session: int, trained: Any, samples: Counter[tuple[str, int]], known: set[str]
    ) -> None:
        while (some := self._some()) is not None:
            cases = {job.asked.case.id: job.asked.case for job, _ in some}
            new = [case for id, case in cases.items() if id not in known]
            rows = [_numbered(end.row, samples) for _, end in some]
            try:
                if self.failed:
                    raise OSError("an earlier answer could not be stored")
                run.add_cases(new)
                if told := [case.id for case in new if case.asked in trained]:
                    run.note_trained_on(told)
                run.add_answers(rows, session)  # without a time: requests of many clients overlap
            except Exception as error:  # the disk is full, for example: nothing is answered unlogged
                self._fail(error)
                for job, _ in some:
                    job.tell(Refused("the log of this server cannot be written", 503, code="log_failed"))
                continue
            known.update(cases)
            for job, end in some:
                job.tell(end)

    def _some(self) -> list[tuple[Job, End]] | None:
        """Wait for answers, and take all that are there; None at the end."""
        found = []
        if (first := self._given.get()) is None:
            return None
        found.append(first)
        with suppress(Empty):
            while (more := self._given.get_nowait()) is not None:
                found.append(more)
            self._given.put(None)
        return found


def _numbered(row: Row, samples: Counter[tuple[str, int]]) -> Row:
    """The row with the next number of its case and exit."""
    number = samples[row.case, row.exit]
    samples[row.case, row.exit] += 1
    return Row(row.case, row.exit, row.answer, row.tokens, row.finish_reason, number, row.reasoning)
