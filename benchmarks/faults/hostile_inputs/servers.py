"""Misbehaviours of a judge's server; none of them is a verdict."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from faulty import completion
from test_service import bomb, drip_body, drip_headers, endless, says

Answer = Callable[[BaseHTTPRequestHandler], None]
SAFE = json.dumps(completion("safe")).encode()


def raw(*parts: bytes, again: bool = False, pause: float = 0.0) -> Answer:
    """Send bytes as they are, then close; with `again` the last part is sent until the client gives up."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        for part in parts:
            handler.connection.sendall(part)
            time.sleep(pause)
        while again:
            handler.connection.sendall(parts[-1])
            time.sleep(pause)
        handler.close_connection = True

    return answer


def status(number: int, **headers: str) -> Answer:
    """A status with a body that says safe."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(number)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(SAFE)))
        handler.end_headers()
        handler.wfile.write(SAFE)

    return answer


def packed(encoding: str, content: bytes) -> Answer:
    """A body that says it is compressed."""
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(content)}\r\n\r\n"
    return raw(head.encode() + content)


def told(value: Any) -> Answer:
    """A body of JSON."""
    return says(json.dumps(value).encode())


def content(value: Any, end: Any = "stop") -> Answer:
    """A completion with any content."""
    made: dict[str, Any] = completion(value)
    made["choices"][0]["finish_reason"] = end
    return told(made)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SERVERS: dict[str, Answer] = {
    "a byte at a time": drip_body, "headers a byte at a time": drip_headers, "silence": raw(b"", again=True, pause=0.1),
    "chunks a byte at a time": raw(CHUNKED, b"1\r\n \r\n", again=True, pause=0.02), "endless body": endless,
    "endless chunks": raw(CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n", again=True), "endless headers": raw(OK, b"a: b\r\n" * 1000, again=True),
    "header of 10 MB": raw(OK + b"a: " + b"b" * 10**7 + b"\r\n\r\n"), "chunk of 2^60": raw(CHUNKED + b"1000000000000000\r\n" + SAFE),
    "chunk extension": raw(CHUNKED + b"1;" + b"a" * 10**6 + b"\r\n"), "interim responses": raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, again=True),
    "length of 10^18": raw(OK + b"Content-Length: 1000000000000000000\r\n\r\n" + SAFE), "negative length": raw(OK + b"Content-Length: -1\r\n\r\n" + SAFE),
    "two lengths": raw(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + SAFE), "length too long": raw(OK + b"Content-Length: 999\r\n\r\n" + SAFE),
    "gzip bomb": bomb, "deflate bomb": packed("deflate", zlib.compress(b"0" * 10**8, 1)), "gzip twice": packed("gzip, gzip", gzip.compress(gzip.compress(SAFE))),
    "no gzip": packed("gzip", SAFE), "unknown encoding": packed("br", SAFE),
    "deep lists": says(b"[" * 10**6), "deep objects": says(b'{"a":' * 10**5 + b"1" + b"}" * 10**5), "10^6 digits": says(b"9" * 10**6), "16 MB of lists": says(b"[" + b"[]," * 5_000_000),
    "UTF-16": says(SAFE.decode().encode("utf-16")), "no JSON": says(b"safe"), "empty": says(b""), "no choices": told({"choices": []}), "choices are null": told({"choices": None}),
    "message is null": told({"choices": [{"message": None}]}), "content is a list": content([{"text": "safe"}]), "content is a number": content(1), "content of 10 MB": content("safe " * 2_000_000),
    "surrogates": content("safe\ud800"), "cut off": content("safe", "length"), "no end": content("safe", None), "end is a list": content("safe", ["stop"]), "filtered": content("safe", "content_filter"),
    "created": status(201), "no content": status(204), "redirect to itself": status(302, Location="/v1/chat/completions"), "redirect to a file": status(302, Location="file:///etc/passwd"),
    "redirect elsewhere": status(307, Location="http://127.0.0.1:9/"), "switching protocols": raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + SAFE),
    "no access": status(401), "not found": status(404), "teapot": status(418), "busy for ever": status(429, Retry_After="1e999"), "busy, not a number": status(429, Retry_After="nan"), "broken": status(500), "status of 999": raw(b"HTTP/1.1 999 X\r\n\r\n" + SAFE),
    "closed at once": raw(b""), "closed after the headers": raw(OK + b"Content-Length: 9\r\n\r\n"), "no HTTP": raw(b"safe\r\n\r\n"), "HTTP/0.9": raw(SAFE), "HTTP/2": raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
}  # fmt: skip
