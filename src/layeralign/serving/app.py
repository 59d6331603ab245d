"""The HTTP side: OpenAI's chat completions, models, health and metrics."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from anyio import CapacityLimiter, to_thread
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from layeralign.serving.limits import BODIES, BODY, SLOW, Refused
from layeralign.serving.metrics import Metrics
from layeralign.serving.requests import Asked, Offer, read
from layeralign.serving.scheduler import End, Event, Job, Scheduler, Text

_GONE = 499
"""Status of a request whose client left; nobody reads it."""
Handler = Callable[[Request], Awaitable[Response]]


@dataclass
class Api:
    """The endpoints.

    Attributes:
        offer: What is served.
        scheduler: Answers the requests.
        key: The key that clients need; empty for none.
        hosts: Names under which the server answers, so that a web page cannot reach a loopback server
            under a name of its own (DNS rebinding); empty for any.
        healthy: Whether answers can be given, besides the scheduler's state.
        seconds: Time until a request has to be answered.
    """

    offer: Offer
    scheduler: Scheduler
    key: str
    hosts: tuple[str, ...]
    healthy: Callable[[], bool]
    seconds: float

    def __post_init__(self) -> None:
        self._began = int(time.time())
        self.metrics = Metrics(lambda: self.scheduler.answers)
        self._reading = CapacityLimiter(2)  # threads that parse bodies and decode pictures
        self._bytes = 0

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            ("/v1/chat/completions", self._chat, "POST"),
            ("/v1/models", self._models, "GET"),
            ("/v1/models/{name:path}", self._model, "GET"),
            ("/metrics", self._show_metrics, "GET"),
        ]
        return Starlette(
            routes=[
                Route("/health", self._health, methods=["GET"]),
                *(Route(path, partial(self._answered, do), methods=[how]) for path, do, how in routes),
            ],
            exception_handlers={HTTPException: _http_error},
        )

    async def _answered(self, do: Handler, request: Request) -> Response:
        """Run an endpoint; every error becomes a response in OpenAI's schema."""
        try:
            self._check_access(request)
            response = await do(request)
        except Refused as error:
            again = {"Retry-After": "5"} if error.status in (429, 503) else {}
            response = JSONResponse(error.body(), error.status, again)
        except ClientDisconnect:
            response = Response(status_code=_GONE)
        except Exception as error:  # its message may quote the request, so it is not printed
            print(f"layeralign: serve: a bug in layeralign ({type(error).__name__})", file=sys.stderr)
            response = JSONResponse(Refused("a bug in layeralign", 500).body(), 500)
        self.metrics.responses.labels(response.status_code).inc()
        return response

    def _check_access(self, request: Request) -> None:
        host = re.sub(r":\d*$", "", request.headers.get("host", "")).strip("[]").lower()
        if self.hosts and host not in self.hosts:
            raise Refused(f"Host: expected {self.hosts[0]}", 421, code="wrong_host")
        given = request.headers.get("authorization", "").encode()
        if self.key and not hmac.compare_digest(given, f"Bearer {self.key}".encode()):
            raise Refused("Authorization: expected Bearer and this server's key", 401, code="invalid_api_key")

    # --- small endpoints

    async def _health(self, request: Request) -> Response:
        fine = self.scheduler.alive and self.healthy()
        return JSONResponse({"status": "ok" if fine else "unavailable"}, 200 if fine else 503)

    async def _show_metrics(self, request: Request) -> Response:
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._about(name) for name in self.offer.models]})

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        self.offer.exit_of(name)
        return JSONResponse(self._about(name))

    def _about(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._began, "owned_by": "layeralign"}

    # --- chat completions

    async def _chat(self, request: Request) -> Response:
        began = time.monotonic()
        until = asyncio.get_running_loop().time() + self.seconds
        with ExitStack() as at_end:  # whether the request is answered, refused, or left by its client
            asked = await self._read(request, at_end)
            reply = _Reply(self, asked, began, until)
            self.scheduler.submit(reply.job)
            at_end.callback(self.scheduler.cancel, reply.job)
            if not asked.stream:
                return JSONResponse(await reply.unless_gone(request, reply.whole()))
            first = await reply.unless_gone(request, reply.next())
            return _Stream(reply.stream(first), at_end.pop_all())

    def _hold(self, size: int) -> None:
        self._bytes += size

    async def _read(self, request: Request, at_end: ExitStack) -> Asked:
        """Read and check the request's body; its size counts until the end."""
        if not self.healthy():
            raise Refused("this server cannot answer", 503)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused("Content-Type: expected application/json", 415)
        if int(request.headers.get("content-length", 0)) > BODY:
            raise Refused(f"the body is larger than {BODY >> 20} MiB, the limit", 413)
        body = bytearray()
        try:
            async with asyncio.timeout(SLOW):
                async for part in request.stream():
                    body += part
                    self._hold(len(part))
                    at_end.callback(self._hold, -len(part))
                    if len(body) > BODY:
                        raise Refused(f"the body is larger than {BODY >> 20} MiB, the limit", 413)
                    if self._bytes > BODIES:
                        raise Refused("too much data waits; try again later", 503)
        except TimeoutError as error:
            raise Refused(f"the body did not arrive in {SLOW:g} s", 408) from error
        return await to_thread.run_sync(read, bytes(body), self.offer, limiter=self._reading)


class _Stream(StreamingResponse):
    """Server-sent events; `at_end` is closed even if the client leaves before the first one."""

    def __init__(self, events: AsyncIterator[str], at_end: ExitStack) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._at_end = at_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._at_end:
            await super().__call__(scope, receive, send)


class _Reply:
    """The reply to one request."""

    def __init__(self, api: Api, asked: Asked, began: float, until: float) -> None:
        loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self.job = Job(asked, lambda event: _tell(loop, self._events, event))
        self._api, self._asked, self._began, self._until = api, asked, began, until
        self._about = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": asked.model,
        }
        self._tokens = 0

    async def next(self) -> Text | End:
        """The next event.

        Raises:
            Refused: There is no answer, or not in time.
        """
        try:
            async with asyncio.timeout_at(self._until):
                event = await self._events.get()
        except TimeoutError as error:
            raise Refused(f"there was no answer within {self._api.seconds:g} s", 504) from error
        if isinstance(event, Refused):
            raise event
        if isinstance(event, End):
            self._tokens += event.tokens
            self._api.metrics.answered(self._asked, self._api.offer, event)
        return event

    async def unless_gone(self, request: Request, work: Any) -> Any:
        """Wait for `work`, unless the client leaves.

        Raises:
            ClientDisconnect: It has left.
        """
        working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ClientDisconnect
            return working.result()
        finally:
            working.cancel()
            leaving.cancel()

    async def whole(self) -> dict[str, Any]:
        """The response with all answers."""
        ends: list[End] = []
        while len(ends) < self._asked.n:
            if isinstance(event := await self.next(), End):
                ends.append(event)
        self._api.metrics.finished(self.job, self._began)
        choices = [
            {"index": end.index, "message": {"role": "assistant", "content": end.text, "refusal": None},
             "logprobs": None, "finish_reason": end.finish_reason}
            for end in sorted(ends, key=lambda end: end.index)
        ]  # fmt: skip
        return self._about | {"object": "chat.completion", "choices": choices, "usage": self._usage()}

    async def stream(self, first: Text | End) -> AsyncIterator[str]:
        """The response as server-sent events."""
        try:
            for index in range(self._asked.n):
                yield self._chunk(index, {"role": "assistant", "content": ""})
            event, left = first, self._asked.n
            while True:
                if isinstance(event, Text):
                    yield self._chunk(event.index, {"content": event.text})
                else:
                    yield self._chunk(event.index, {}, event.finish_reason)
                    left -= 1
                if not left:
                    break
                event = await self.next()
            if self._asked.usage:
                yield _event(self._about | _CHUNK | {"choices": [], "usage": self._usage()})
            self._api.metrics.finished(self.job, self._began)
            yield "data: [DONE]\n\n"
        except Refused as error:
            yield _event(error.body())

    def _chunk(self, index: int, delta: dict[str, str], reason: str | None = None) -> str:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        usage = {"usage": None} if self._asked.usage else {}
        return _event(self._about | _CHUNK | {"choices": [choice]} | usage)

    def _usage(self) -> dict[str, int]:
        prompt = self.job.prompt_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self._tokens,
            "total_tokens": prompt + self._tokens,
        }


_CHUNK = {"object": "chat.completion.chunk"}


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


async def _left(request: Request) -> None:
    """Wait until the client leaves."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _tell(loop: asyncio.AbstractEventLoop, events: asyncio.Queue[Event], event: Event) -> None:
    """Pass an event from another thread to the loop, which may have ended."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(events.put_nowait, event)


async def _http_error(request: Request, error: Exception) -> Response:
    """An unknown path or method, in OpenAI's schema."""
    status = getattr(error, "status_code", 500)
    return JSONResponse(Refused(str(getattr(error, "detail", "")), status).body(), status)
