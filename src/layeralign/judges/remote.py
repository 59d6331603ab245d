"""Any server that speaks OpenAI's chat completions; what fails is a failure, never an answer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay
from tenacity import wait_random_exponential as wait_jitter

from layeralign.errors import LayeralignError

KEY = "LAYERALIGN_API_KEY"
"""The environment variable with the server's key; a server on this machine needs none."""

Message = dict[str, Any]

_REFUSED = {
    401: "the key is missing or wrong",
    403: "the key may not use it",
    404: "it has no such address or model",
}
_LATER = (408, 409, 425, 429, *range(500, 600))


@dataclass(frozen=True)
class Failure:
    """No reply; `why` is one of a few sentences of ours, and holds nothing that the server said."""

    why: str


class _Again(Exception):
    """What may be over when it is tried again."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.why, self.after = why, after


@dataclass(frozen=True)
class Endpoint:
    """A model on a server.

    Attributes:
        url: base, as http://localhost:8000/v1.
        model: as the server calls it.
        attempts: how often one question is asked before it is given up.
        budget: seconds that one question may take with all its attempts.
        timeout: seconds that one attempt may take.
        slowest: longest pause between attempts, in seconds; pauses are random and grow, and a server's
            `Retry-After` goes before them.
        workers: questions that are under way at a time.
    """

    url: str
    model: str
    attempts: int = 8
    budget: float = 300.0
    timeout: float = 60.0
    slowest: float = 30.0
    workers: int = 8
    _key: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str, model: str, **settings: Any) -> Endpoint:
        """An endpoint whose key, if any, is in the environment.

        Raises:
            LayeralignError: `url` is no http or https address, or carries a key.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise LayeralignError("endpoint: expected an address such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise LayeralignError(f"endpoint: give the key in the environment ({KEY}), not in the address")
        return cls(url.rstrip("/"), model, **settings, _key=os.environ.get(KEY))

    def record(self) -> dict[str, Any]:
        """What identifies it; no key."""
        return {"endpoint": self.url, "model": self.model}

    def ask_all(self, conversations: Sequence[Sequence[Message]], **settings: Any) -> list[str | Failure]:
        """A reply, or a failure, to each conversation, in their order.

        Args:
            conversations: messages each.
            settings: what the request says besides, as `max_tokens`.

        Raises:
            LayeralignError: the server does not take the key, or has no such model; nothing is asked further.
        """
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Limits(max_connections=self.workers)
        with (
            httpx.Client(headers=headers, timeout=self.timeout, limits=limits) as client,
            ThreadPoolExecutor(self.workers) as pool,
        ):
            asked = [pool.submit(self._ask, client, one, settings) for one in conversations]
            try:
                return [one.result() for one in asked]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _ask(
        self, client: httpx.Client, messages: Sequence[Message], settings: dict[str, Any]
    ) -> str | Failure:
        body = {"model": self.model, "messages": list(messages), "temperature": 0, **settings}
        retrying = Retrying(
            retry=retry_if_exception_type(_Again), wait=self._pause, reraise=True,
            stop=stop_after_attempt(self.attempts) | stop_after_delay(self.budget),
        )  # fmt: skip
        try:
            reply: str | Failure = retrying(self._once, client, body)
        except _Again as given_up:
            return Failure(f"{given_up.why}, {self.attempts} times or for {self.budget:.0f} s")
        return reply

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        after = error.after if isinstance(error, _Again) else None
        waits: float = wait_jitter(multiplier=min(0.5, self.slowest), max=self.slowest)(state)
        return waits if after is None else min(max(after, waits), self.budget)

    def _once(self, client: httpx.Client, body: dict[str, Any]) -> str | Failure:
        try:
            answer = client.post(f"{self.url}/chat/completions", json=body)
        except httpx.TimeoutException:
            raise _Again("timed out") from None
        except httpx.TransportError:
            raise _Again("the connection failed") from None
        status = answer.status_code
        if status in _REFUSED:
            raise LayeralignError(f"endpoint {self.url}: answers {status}: {_REFUSED[status]} ({self.model})")
        if status in _LATER:
            raise _Again(f"the server answered {status}", _seconds(answer.headers.get("Retry-After")))
        if status != 200:
            return Failure(f"the server answered {status}")
        return _reply(answer)


def _seconds(after: str | None) -> float | None:
    try:
        return max(0.0, float(after)) if after else None
    except ValueError:
        return None  # a date; the growing pauses will do


def _reply(answer: httpx.Response) -> str | Failure:
    """The text of a completion that is whole; a broken one is asked for again."""
    try:
        choice = answer.json()["choices"][0]
        text, end = choice["message"]["content"], choice.get("finish_reason", "stop")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise _Again("the reply was no completion") from None
    if end == "content_filter":
        return Failure("the server's own filter held the reply back")
    if not isinstance(text, str):
        return Failure("the reply had no text")
    return text
