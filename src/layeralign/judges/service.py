"""A server that is asked one thing many times; what fails is a failure, never an answer."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

import httpx

from layeralign._util.retry import LATER, Retry, retry, seconds
from layeralign.errors import LayeralignError

_REFUSED = {
    401: "the key is missing or wrong",
    403: "the key may not use it",
    404: "it has no such address or model",
}
_LATER = (*LATER, 409)


@dataclass(frozen=True)
class Failure:
    """No reply; `why` is one of a few sentences of ours, and holds nothing that the server said."""

    why: str


_trust = cache(httpx.create_ssl_context)
"""Whom https trusts; read once, which takes longer than a request."""

Reply = TypeVar("Reply")
Reader = Callable[[httpx.Response], Reply | Failure]
"""What makes a reply of a response that is neither refused nor to be tried later; may raise `Retry`."""


class Pace:
    """Lets requests start at least `gap` seconds apart, whichever thread sends them."""

    def __init__(self, gap: float) -> None:
        self._gap, self._next, self._lock = gap, 0.0, threading.Lock()

    def wait(self) -> None:
        """Until it is this request's turn."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap
        time.sleep(turn - now)

    def hold(self, seconds: float) -> None:
        """Let none start for so long: a quota that one request has used up is used up for all."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


@dataclass(frozen=True)
class Service:
    """Where to ask, and how patiently.

    Attributes:
        url: base, as http://localhost:8000/v1.
        headers: sent along; they may hold a key, and appear in nothing that is shown.
        attempts: how often one question is asked before it is given up.
        budget: seconds that one question may take with all its attempts.
        timeout: seconds that one attempt may take.
        slowest: longest pause between attempts, in seconds; pauses are random and grow, and a server's
            `Retry-After` goes before them.
        workers: questions that are under way at a time.
        gap: seconds between the starts of any two requests.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    attempts: int = 8
    budget: float = 300.0
    timeout: float = 60.0
    slowest: float = 30.0
    workers: int = 8
    gap: float = 0.0

    def ask_all(
        self, path: str, bodies: Sequence[Mapping[str, Any]], read: Reader[Reply]
    ) -> list[Reply | Failure]:
        """A reply, or a failure, to each question, in their order.

        Args:
            path: behind the base.
            bodies: the questions, sent as JSON.
            read: what a response says.

        Raises:
            LayeralignError: the server refuses to be asked; nothing is asked further.
        """
        limits = httpx.Limits(max_connections=self.workers)
        with (
            httpx.Client(
                headers=dict(self.headers), timeout=self.timeout, limits=limits, verify=_trust()
            ) as client,
            ThreadPoolExecutor(self.workers) as pool,
        ):
            talk = _Talk(self, client, f"{self.url}{path}", read, Pace(self.gap))
            asked = [pool.submit(talk.ask, body) for body in bodies]
            try:
                return [one.result() for one in asked]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


@dataclass(frozen=True)
class _Talk(Generic[Reply]):
    """One client's questions to one address."""

    service: Service
    client: httpx.Client
    url: str
    read: Reader[Reply]
    pace: Pace

    def ask(self, body: Mapping[str, Any]) -> Reply | Failure:
        """Ask until there is an answer, or patience ends."""
        own = self.service
        try:
            return retry(
                lambda: self._once(body), attempts=own.attempts, budget=own.budget, slowest=own.slowest
            )
        except Retry as given_up:
            return Failure(f"{given_up.why}, {own.attempts} times or for {own.budget:.0f} s")

    def _once(self, body: Mapping[str, Any]) -> Reply | Failure:
        self.pace.wait()
        try:
            answer = self.client.post(self.url, json=dict(body))
        except httpx.TimeoutException:
            raise Retry("timed out") from None
        except httpx.RequestError:  # dropped, cut, or packed in a way that cannot be unpacked
            raise Retry("the connection failed") from None
        status = answer.status_code
        if status in _REFUSED:
            raise LayeralignError(f"endpoint {self.service.url}: answers {status}: {_REFUSED[status]}")
        if status in _LATER:
            after = seconds(answer.headers.get("Retry-After"))
            if status == httpx.codes.TOO_MANY_REQUESTS and self.service.gap and after:
                self.pace.hold(min(after, self.service.budget))
            raise Retry(f"the server answered {status}", after)
        return self.read(answer)


def address(url: str, key: str) -> str:
    """A base URL that was given, without a slash at its end.

    Args:
        url: what was given.
        key: the environment variable that the server's key is in.

    Raises:
        LayeralignError: it is no http or https address, or carries a key.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LayeralignError("endpoint: expected an address such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        raise LayeralignError(f"endpoint: give the key in the environment ({key}), not in the address")
    return url.rstrip("/")


def key_in(name: str) -> str | None:
    """The key in an environment variable, None where there is none.

    Raises:
        LayeralignError: it has characters that a header cannot have; the message does not show it.
    """
    key = os.environ.get(name)
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise LayeralignError(f"{name}: holds a blank, a line break or another character that no key has")
    return key or None
