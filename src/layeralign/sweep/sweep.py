"""Cases × exits → rows of a run."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from layeralign import decode
from layeralign.cases.case import Case
from layeralign.decode import Decoding
from layeralign.errors import LayeralignError
from layeralign.judges.judge import SILENT, Judge, RowJudge
from layeralign.judges.registry import judges
from layeralign.runs import store
from layeralign.runs.store import Row, Run
from layeralign.sweep.identity import identity, versions
from layeralign.sweep.progress import Progress
from layeralign.vlm.exits import ExitSpec
from layeralign.vlm.vlm import Vlm

Pair = tuple[Case, int]


@dataclass(frozen=True)
class Settings:
    """How a scan runs."""

    exits: ExitSpec = "all"
    decoding: Decoding = field(default_factory=Decoding)
    seed: int = 0
    batch_size: int = 32
    """(case, exit) rows that are answered together."""

    def record(self) -> dict[str, Any]:
        """What of these shapes an answer. Sampling draws for a whole batch at once."""
        batch = {"batch_size": self.batch_size} if self.decoding.temperature else {}
        return {"decoding": self.decoding.record() | batch, "seed": self.seed}


def sweep(vlm: Vlm, cases: Sequence[Case], out: Path, settings: Settings) -> Run:
    """Answer every case at every exit that the run in `out` does not hold yet, then judge.

    Each batch is written when it is done: stopped at any moment, the same call goes on.

    Returns:
        The open run.

    Raises:
        LayeralignError: `out` holds another run, or a case cannot be put to this model.
    """
    if settings.batch_size < 1:
        raise LayeralignError(f"batch_size {settings.batch_size}: expected at least 1")
    exits = vlm.exits.parse(settings.exits)
    decode.rehearse(vlm, cases)  # before anything is written
    run = store.create(out, vlm.name, identity(vlm) | settings.record(), vlm.exits.to_json())
    try:
        run.add_cases(cases)
        _answer(vlm, run, cases, exits, settings)
        judge(run, judges(["oracle", "refusal"]))
    except BaseException:
        run.close()
        raise
    return run


def _answer(vlm: Vlm, run: Run, cases: Sequence[Case], exits: Sequence[int], settings: Settings) -> None:
    done = run.answered()
    pending = [(case, exit) for case in _ordered(cases) for exit in exits if (case.id, exit) not in done]
    if not pending:
        return
    run.add_session(datetime.now(UTC).isoformat(timespec="seconds"), shlex.join(sys.argv), versions())
    with Progress(
        "answers", total=len(cases) * len(exits), done=len(cases) * len(exits) - len(pending)
    ) as progress:
        for batch in _batches(pending, settings.batch_size):
            if settings.decoding.temperature:
                torch.manual_seed(_seed_of(batch, settings.seed))
            answers = decode.answer(vlm, batch, settings.decoding)
            run.add_answers(Row(a.case.id, a.exit, a.text, a.tokens, a.finished) for a in answers)
            progress.advance(len(batch))


def _ordered(cases: Iterable[Case]) -> list[Case]:
    """Cases of one picture together, so that it is encoded once; then alike lengths together."""
    by_picture: dict[str, list[Case]] = {}
    for case in cases:
        by_picture.setdefault(case.picture.sha256 if case.picture else "", []).append(case)
    groups = sorted(by_picture.values(), key=lambda group: max(len(c.prompt) for c in group))
    return [case for group in groups for case in sorted(group, key=lambda c: len(c.prompt))]


def _batches(pairs: Sequence[Pair], size: int) -> Iterator[Sequence[Pair]]:
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]


def _seed_of(batch: Sequence[Pair], seed: int) -> int:
    """The same batch samples the same answers, whenever it is answered."""
    names = repr((seed, [(case.id, exit) for case, exit in batch]))
    return int.from_bytes(hashlib.sha256(names.encode()).digest()[:8]) >> 1


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
        if again:
            run.forget(one.name)
        run.add_judge(one.name, one.record())
        rows = run.unjudged(one.name, invalid=retry_invalid)
        with Progress(f"judged by {one.name}", len(rows), speaks=not isinstance(one, RowJudge)) as progress:
            for start in range(0, len(rows), one.together):
                some = rows[start : start + one.together]
                words = one.judge_all([(cases[case], answer) for case, _, answer in some])
                run.add_verdicts(
                    one.name,
                    [
                        (case, exit, word)
                        for (case, exit, _), word in zip(some, words, strict=True)
                        if word != SILENT
                    ],
                )
                progress.advance(len(some))
