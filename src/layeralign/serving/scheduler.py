"""The thread in which the model works: requests of all exits share the batch of one engine."""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

from layeralign._util.text import printable
from layeralign.decode import stream
from layeralign.decode.decoding import Decoding
from layeralign.decode.engine import Engine
from layeralign.decode.plain import Plain
from layeralign.decode.requests import Generation, Prompt, Request, Wanted
from layeralign.decode.sampling import Sampler, seed_of
from layeralign.errors import LayeralignError
from layeralign.runs.store import Row
from layeralign.serving.features import Features
from layeralign.serving.limits import FEATURES, QUEUE, Refused
from layeralign.serving.requests import Asked
from layeralign.serving.text import certain, prompt_ids, said
from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm

_GROUP = 32
"""Most requests whose pictures are encoded together."""
_TOGETHER = 0.05
"""Time for which a request waits for others while a large batch is decoded, in seconds: few prompts that are
read together cost as much as one."""
_PIXELS = 50_000_000
"""Most pixels that are encoded together, unless one picture has more."""


@dataclass(frozen=True)
class Text:
    """The next part of an answer that is streamed."""

    index: int
    text: str


@dataclass(frozen=True)
class End:
    """A finished answer."""

    index: int
    text: str
    finish_reason: str
    tokens: int
    row: Row


Event = Text | End | Refused
_FAILED = {
    "non-finite": Refused("the model's logits are not finite numbers", 500, code="non_finite"),
    "failed": Refused("the vLLM server gave no answer", 502, code="engine_failed"),
}
"""Finish reasons of what is no answer -> what a client is told."""


@dataclass(eq=False)
class Job:
    """A request that is being answered.

    Attributes:
        asked: The request.
        tell: Called with each event, from the scheduler's thread.
        gone: Whether nobody waits for the answers any more; see `Scheduler.cancel`.
        prompt_tokens: Length of the prompt, once it is known.
    """

    asked: Asked
    tell: Callable[[Event], None]
    gone: bool = False
    prompt_tokens: int = 0
    left: int = 0
    since: float = field(default_factory=time.monotonic)
    shown: dict[int, str] = field(default_factory=dict)


Key = tuple[Job, int]
"""A request and the number of its answer."""


class Answers(Protocol):
    """What answers requests, as `layeralign.decode.engine.Engine` does."""

    def run(self, requests: Iterable[Request[Key]]) -> Iterator[list[Generation[Key]]]:
        """Yield answers as they end; an iterator of requests that stops may have more later."""
        ...


class Scheduler:
    """Answers jobs, in the order in which they come, in a thread of its own."""

    def __init__(
        self,
        vlm: Vlm,
        decoding: Decoding,
        longest: int,
        store: Callable[[Job, End], None] | None = None,
        relay: Answers | None = None,
    ) -> None:
        """Start the thread.

        Args:
            vlm: The model; no other thread may use it.
            decoding: Default settings of an answer.
            longest: Largest length of an answer, in tokens.
            store: Takes each finished answer, and tells the job when it is stored.
            relay: What answers instead of an engine of this process.
        """
        self._relay = relay
        self._vlm, self._decoding, self._longest = vlm, decoding, longest
        self._features = Features(vlm, FEATURES)
        self._store = store or (lambda job, end: job.tell(end))
        self._pending: deque[Job] = deque()
        self._ready: deque[Request[Key]] = deque()
        self._jobs: set[Job] = set()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread works, and takes requests."""
        return self._thread.is_alive() and not self._closing

    @property
    def answers(self) -> int:
        """Number of answers that wait or are being generated."""
        with self._wake:
            return sum(job.left for job in (*self._pending, *self._jobs))

    def submit(self, job: Job) -> None:
        """Add a job.

        Raises:
            Refused: The queue is full, or the server is being stopped.
        """
        job.left = job.asked.n
        if not self.alive:
            raise Refused("the server is being stopped; try another one", 503)
        if self.answers + job.left > QUEUE:
            raise Refused(f"{QUEUE} answers wait already; try again later", 429, code="queue_full")
        with self._wake:
            self._pending.append(job)
            self._wake.notify()

    def cancel(self, job: Job) -> None:
        """Let a job go: it leaves the queue, or its rows end with their next token."""
        job.gone = True
        with self._wake, suppress(ValueError):
            self._pending.remove(job)

    def close(self) -> None:
        """Let every job go that is not finished, and end the thread."""
        with self._wake:
            self._closing = True
            for job in (*self._pending, *self._jobs):
                job.gone = True
            self._wake.notify()
        self._thread.join()

    # --- the thread

    def _work(self) -> None:
        engine = self._engine()
        while self._wait():
            try:
                for done in engine.run(self):
                    for said in done:
                        self._finish(said)
            except Exception as error:  # the model can raise anything; the next request has another chance
                self._fail(error)
                engine = self._engine()

    def _engine(self) -> Answers:
        if self._relay:
            return self._relay
        choose = Sampler(self._decoding, self._vlm.device)
        if self._vlm.streams:
            return Engine(self._vlm, choose, self._longest, goes_on=self._goes_on)
        return Plain(self._vlm, choose, self._longest)

    def _wait(self) -> bool:
        """Wait for a job; returns False once the scheduler is closed."""
        with self._wake:
            while not self._pending and not self._closing:
                self._wake.wait()
            return not self._closing

    def __iter__(self) -> Iterator[Request[Key]]:
        return self

    def __next__(self) -> Request[Key]:
        """The next request to the engine; stops while there is none."""
        while not self._ready:
            if not (jobs := self._take()):
                raise StopIteration
            self._ready += self._requests(jobs)
        return self._ready.popleft()

    def _take(self) -> list[Job]:
        """Take the next jobs whose pictures can be encoded together."""
        jobs: list[Job] = []
        pixels = 0
        with self._wake:
            many = min(_GROUP, sum(job.left for job in self._jobs) // 4)
            if 0 < len(self._pending) < many and time.monotonic() < self._pending[0].since + _TOGETHER:
                return []
            while self._pending and len(jobs) < _GROUP:
                width, height = getattr(self._pending[0].asked.case.picture, "size", (0, 0))
                pixels += width * height
                if jobs and pixels > _PIXELS:
                    break
                job = self._pending.popleft()
                if not job.gone:
                    jobs.append(job)
            self._jobs.update(jobs)
        return jobs

    # --- prompts

    def _requests(self, jobs: Sequence[Job]) -> list[Request[Key]]:
        """Encode the jobs' pictures and make their prompts; refuse jobs that the model cannot be asked."""
        seen = {_seen(job): (job.asked.case, job.asked.exit, 0) for job in jobs}
        try:
            features = self._features.of(seen)
        except Exception as error:
            if len(jobs) > 1:  # find the picture that the encoder does not take
                return [one for job in jobs for one in self._requests([job])]
            self._drop(jobs[0], _told(error))
            return []
        found = []
        for job in jobs:
            try:
                found.append(self._request(job, features[_seen(job)]))
            except Exception as error:
                self._drop(job, _told(error))
        return found

    def _request(self, job: Job, feature: Feature | None) -> Request[Key]:
        asked, vlm = job.asked, self._vlm
        ids = prompt_ids(vlm, asked, feature)
        job.prompt_tokens, longest = len(ids), asked.decoding.max_new_tokens
        if vlm.context is not None and len(ids) + longest > vlm.context:
            raise Refused(
                f"messages: their {len(ids)} tokens and an answer of {longest} exceed the {vlm.context} "
                "positions of the model; shorten them, or lower max_tokens", 400, "messages",
                "context_length_exceeded",
            )  # fmt: skip
        seed = secrets.randbits(63) if asked.seed is None else asked.seed
        sampler = sampler_of(asked.decoding.temperature, asked.decoding.top_p, vlm.device)
        wanted = [
            Wanted(((job, index),), seed_of(seed, asked.case.id, asked.exit, index), sampler, longest)
            for index in range(asked.n)
        ]
        return Request((Prompt(ids, feature, tuple(wanted)),))

    # --- answers

    def _goes_on(self, keys: tuple[Key, ...], tokens: Sequence[int]) -> bool:
        """Stream a row's text; returns whether the row still has a reader and no stop text."""
        ((job, index),) = keys
        if job.gone:
            return False
        if not (job.asked.stream or job.asked.stop):
            return True
        reply, text, stopped = said(self._vlm, tokens, job.asked)
        if job.asked.stream and not stopped and not reply.reasoning:
            self._show(job, index, certain(self._vlm, text, job.asked))
        return not stopped

    def _show(self, job: Job, index: int, text: str) -> None:
        shown = job.shown.get(index, "")
        if len(text) > len(shown) and text.startswith(shown):
            job.shown[index] = text
            job.tell(Text(index, text[len(shown) :]))

    def _finish(self, made: Generation[Key]) -> None:
        ((job, index),) = made.keys
        if job not in self._jobs:
            return
        if (refused := _FAILED.get(made.finish_reason)) and not job.gone:
            self._drop(job, refused)
            return
        reply, text, stopped = said(self._vlm, made.tokens, job.asked)
        reason = "stop" if stopped else made.finish_reason
        case, exit = job.asked.case.id, job.asked.exit
        why = reason if reply.answered else "reasoning"
        row = Row(case, exit, text, len(made.tokens), why, reasoning=reply.reasoning)
        if not job.gone:
            if job.asked.stream:
                self._show(job, index, text)
            self._store(job, End(index, text, reason, len(made.tokens), row))
        job.left -= 1
        if not job.left:
            self._forget(job)

    def _drop(self, job: Job, why: Refused) -> None:
        """Tell a job that it gets no answer; its other rows end with their next token."""
        job.gone = True
        job.tell(why)
        self._forget(job)

    def _forget(self, job: Job) -> None:
        with self._wake:
            self._jobs.discard(job)

    def _fail(self, error: Exception) -> None:
        """Tell every job of the engine that it has failed."""
        why = printable(str(error), 200) if isinstance(error, LayeralignError) else type(error).__name__
        print(f"layeralign: serve: the engine failed ({why}) and starts again", file=sys.stderr)
        self._ready.clear()
        for job in [*self._jobs]:
            self._drop(job, _told(error) if isinstance(error, Refused) else Refused(f"failed: {why}", 500))


def _seen(job: Job) -> stream.Seen:
    picture = job.asked.case.picture
    return (picture.sha256, job.asked.exit) if picture else None


def _told(error: Exception) -> Refused:
    """What a client sees of an error: our own sentence, or the kind of a library's error."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, LayeralignError):
        return Refused(printable(str(error), 400), 400, "messages")
    return Refused(f"the model failed ({type(error).__name__})", 500)


@lru_cache(maxsize=64)
def sampler_of(temperature: float, top_p: float, device: Any) -> Sampler:
    """The sampler of these settings, one for all rows, so that they choose their tokens together."""
    return Sampler(Decoding(temperature=temperature, top_p=top_p), device)
