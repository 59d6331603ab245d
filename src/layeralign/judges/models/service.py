"""HTTP client for many requests to one server, with retries; a failed request never becomes an answer.

The server is not trusted: an attempt has a deadline for the whole response, however slowly it comes, and a
limit of its size. Compressed responses are not asked for and not unpacked, and cookies are not kept: each
request would carry those of all responses before it.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

from layeralign._util.retry import LATER, Retry, retry, seconds
from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.judges.models.address import is_near
from layeralign.judges.models.content import Held

if TYPE_CHECKING:
    import httpx
    from anyio.from_thread import BlockingPortal

_REFUSED = {
    401: "the key is missing or wrong",
    403: "the key has no access",
    404: "the address or model does not exist",
}
_LATER = (*LATER, 409)


@dataclass(frozen=True)
class Failure:
    """A failed request; `why` is one of our own sentences and quotes nothing from the server."""

    why: str


@cache
def _trust() -> ssl.SSLContext:
    """Return the TLS context, created once, since that takes longer than a request."""
    import httpx  # its import takes longer than most commands

    return httpx.create_ssl_context()


Reply = TypeVar("Reply")
Key = TypeVar("Key")
Body = Mapping[str, Any] | None
Reader = Callable[["httpx.Response"], Reply | Failure]
"""Converts a response that is neither refused nor temporary to a reply; may raise `Retry`."""


class Pace:
    """Rate limit: requests of all threads start at least `gap` seconds apart."""

    def __init__(self, gap: float) -> None:
        self._gap, self._next, self._lock = gap, 0.0, threading.Lock()

    def wait(self) -> None:
        """Wait until this request may start."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap
        time.sleep(turn - now)

    def hold(self, seconds: float) -> None:
        """Start no request for `seconds`, since all requests share one quota."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


@dataclass(frozen=True)
class Service:
    """A server and its retry settings.

    Attributes:
        url: Base URL, such as http://localhost:8000/v1.
        headers: Headers of every request; they may contain a key and are never shown.
        attempts: Attempts per request.
        budget: Seconds per request, over all attempts.
        timeout: Seconds per attempt, from its start to the last byte of the response.
        slowest: Longest pause between attempts, in seconds. Pauses are random and grow; a server's
            `Retry-After` has priority.
        workers: Concurrent requests.
        gap: Minimum seconds between the starts of two requests.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    attempts: int = 8
    budget: float = 300.0
    timeout: float = 60.0
    slowest: float = 30.0
    workers: int = 8
    gap: float = 0.0

    @property
    def proxied(self) -> bool:
        """Whether a proxy of the environment may be used.

        It is not for a loopback, private or single-label address. It is not for plain http with headers of
        ours either, since the proxy would read the key.
        """
        parts = urlsplit(self.url)
        return not is_near(parts.hostname or "") and (parts.scheme == "https" or not self.headers)

    def ask_all(self, path: str, bodies: Sequence[Body], read: Reader[Reply]) -> list[Reply | Failure]:
        """Send every request; returns a reply or a failure for each, in order.

        Args:
            path: Path after the base URL.
            bodies: Request bodies, sent as JSON; None for a GET request.
            read: Converts a response to a reply.

        Raises:
            LayeralignError: The address is invalid, or the server refuses access; no more requests are sent.
        """
        found = dict(self.ask_each(path, enumerate(bodies), read))
        return [found[number] for number in range(len(bodies))]

    def ask_each(
        self,
        path: str,
        asked: Iterable[tuple[Key, Body]],
        read: Reader[Reply],
        in_flight: Callable[[], float] = lambda: inf,
    ) -> Iterator[tuple[Key, Reply | Failure]]:
        """Send requests as they come; yields each one's key, and a reply or a failure, as they end.

        Args:
            path: Path after the base URL.
            asked: A key and a body of each request; the next is taken as soon as there is room for it.
            read: Converts a response to a reply.
            in_flight: Number of requests after which no further one is taken until one has ended.

        Raises:
            LayeralignError: See `ask_all`.
        """
        with self.talking(path, read) as send:
            sent: dict[Future[Reply | Failure], Key] = {}
            for key, body in asked:
                sent[send(body)] = key
                while len(sent) >= in_flight():
                    yield from _ended(sent)
            while sent:
                yield from _ended(sent)

    @contextmanager
    def talking(self, path: str, read: Reader[Reply]) -> Iterator[Callable[[Body], Future[Reply | Failure]]]:
        """A function that sends a request; what has not ended when the context ends is cancelled.

        Args:
            path: Path after the base URL.
            read: Converts a response to a reply.

        Raises:
            LayeralignError: See `ask_all`.
        """
        import httpx
        from anyio.from_thread import start_blocking_portal

        try:
            httpx.Request("POST", f"{self.url}{path}")
        except (httpx.InvalidURL, UnicodeError):
            raise LayeralignError(
                f"endpoint {printable(self.url, 80)}: is no valid address; correct its host"
            ) from None
        limits = httpx.Limits(max_connections=self.workers)
        headers = {**self.headers, "Accept-Encoding": "identity"}
        try:
            client = httpx.AsyncClient(
                headers=headers, timeout=self.timeout, limits=limits, verify=_trust(),
                trust_env=self.proxied, cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )  # fmt: skip
        except (ImportError, ValueError, httpx.InvalidURL) as error:  # of a proxy in the environment
            raise LayeralignError(
                f"endpoint {self.url}: the proxy of the environment cannot be used "
                f"({printable(str(error), 100)}); correct HTTPS_PROXY, HTTP_PROXY, ALL_PROXY or NO_PROXY"
            ) from None
        with (
            start_blocking_portal() as portal,  # a thread with an event loop, which can stop any request
            portal.wrap_async_context_manager(client),
            ThreadPoolExecutor(self.workers) as pool,
        ):
            talk = _Talk(self, client, portal, f"{self.url}{path}", read, Pace(self.gap))
            try:
                yield lambda body: pool.submit(talk.ask, body)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                talk.stop()  # the pool waits for the requests that were sent


def _ended(sent: dict[Future[Reply | Failure], Key]) -> Iterator[tuple[Key, Reply | Failure]]:
    """Wait for one request or more to end; removes and yields them."""
    for one in wait(sent, return_when=FIRST_COMPLETED).done:
        yield sent.pop(one), one.result()


@dataclass(frozen=True)
class _Talk(Generic[Reply]):
    """One client's requests to one address."""

    service: Service
    client: httpx.AsyncClient
    portal: BlockingPortal
    url: str
    read: Reader[Reply]
    pace: Pace
    answered: list[float] = field(default_factory=list)
    """Times at which the server has answered anything."""
    lost: list[float] = field(default_factory=list)
    """Starts of the requests that were given up without an answer."""
    held: Held = field(default_factory=Held)
    sending: set[Future[httpx.Response]] = field(default_factory=set)
    stopped: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """Cancel all requests and pauses; `ask` raises `CancelledError` from now on."""
        self.stopped.set()
        for one in list(self.sending):
            one.cancel()

    def ask(self, body: Body) -> Reply | Failure:
        """Send a request until there is a reply, or attempts or time run out.

        Raises:
            LayeralignError: No connection was possible, and no other request had an answer meanwhile; or as
                many requests as can be sent together were given up since the last answer.
        """
        own, start = self.service, time.monotonic()
        try:
            return retry(
                lambda: self._once(body), attempts=own.attempts, budget=own.budget, slowest=own.slowest,
                stopped=self.stopped,
            )  # fmt: skip
        except Retry as given_up:
            tried = f"{own.attempts} times or for {own.budget:.0f} s"
            answered = self.answered and self.answered[-1] >= start
            if isinstance(given_up, _NoConnection) and not answered:
                raise LayeralignError(
                    f"endpoint {own.url}: cannot be reached, {tried}; the same command resumes when it "
                    "answers"
                ) from None
            if isinstance(given_up, _NoAnswer):
                self.lost.append(start)
                last = max(self.answered, default=0.0)
                if (silent := sum(one >= last for one in self.lost)) >= own.workers:
                    raise LayeralignError(
                        f"endpoint {own.url}: has not answered {silent} requests, each {tried}; the same "
                        "command resumes when it answers"
                    ) from None
            return Failure(f"{given_up.why}, {tried}")

    def _once(self, body: Body) -> Reply | Failure:
        import httpx

        self.pace.wait()
        try:
            answer = self._sent(body)
        except (httpx.TimeoutException, TimeoutError):
            raise _NoAnswer("timed out") from None
        except httpx.ConnectError:
            raise _NoConnection("the connection failed") from None
        except httpx.RequestError:  # dropped or truncated
            raise _NoAnswer("the connection failed") from None
        try:
            return self._read(answer)
        except (LayeralignError, Retry, MemoryError):
            raise
        except Exception as error:  # of a reply in a form that no reader expects
            raise Retry(f"the reply cannot be read ({type(error).__name__})") from error
        finally:
            self.held.free(len(answer.content))

    def _read(self, answer: httpx.Response) -> Reply | Failure:
        import httpx

        self.answered.append(time.monotonic())
        status = answer.status_code
        if status in _REFUSED:
            raise LayeralignError(f"endpoint {self.service.url}: answered {status}: {_REFUSED[status]}")
        if status in _LATER:
            after = seconds(answer.headers.get("Retry-After"))
            if status == httpx.codes.TOO_MANY_REQUESTS and self.service.gap and after:
                self.pace.hold(min(after, self.service.budget))
            raise Retry(f"the server answered {status}", after)
        return self.read(answer)

    def _sent(self, body: Body) -> httpx.Response:
        if self.stopped.is_set():
            raise CancelledError
        sending = self.portal.start_task_soon(self._send, body)
        self.sending.add(sending)
        if self.stopped.is_set():
            sending.cancel()
        try:
            return sending.result()
        finally:
            self.sending.discard(sending)

    async def _send(self, body: Body) -> httpx.Response:
        """Send a request; return the response with its whole content."""
        import httpx
        from anyio import fail_after

        with fail_after(self.service.timeout):
            how = "GET" if body is None else "POST"
            async with self.client.stream(how, self.url, json=body) as answer:
                if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
                    raise Retry("the response was compressed, which was not asked for")
                content = await self.held.joined(answer.aiter_raw())
                kept = [one for one in answer.headers.raw if one[0].lower() == b"retry-after"]  # bytes: any
                return httpx.Response(answer.status_code, headers=kept, content=content)


class _NoAnswer(Retry):
    """There was no whole answer in time."""


class _NoConnection(_NoAnswer):
    """Nothing listens at the address, or it cannot be reached."""
