"""The content of a server's responses, within limits of its size and of its parts."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from layeralign._util.retry import Retry

if TYPE_CHECKING:
    import httpx

MAX_BYTES = 16 * 2**20
"""Largest response, in bytes; a longer one is an invalid try."""
MOST_HELD = 2**28
"""Most bytes of all responses to one client that are not read yet: hundreds of requests may be in flight."""
_MOST_PARTS = {b"{": 100_000, b"[": 100_000, b",": 1_000_000}
"""Most parts of a response: as objects they take 40 times the memory of their text."""
_READING = threading.Lock()
"""One response is parsed at a time, since Python computes in one thread at a time and each takes memory."""


class Held:
    """The bytes of all responses that one client holds."""

    def __init__(self) -> None:
        self._size, self._lock = 0, threading.Lock()

    async def joined(self, parts: AsyncIterator[bytes]) -> bytes:
        """Join parts up to `MAX_BYTES`; `free` them later.

        Raises:
            Retry: They are longer, or all responses together are longer than `MOST_HELD`.
        """
        found = bytearray()
        try:
            async for part in parts:
                found += part
                self.free(-len(part))
                if len(found) > MAX_BYTES:
                    raise Retry(f"the response was longer than {MAX_BYTES >> 20} MiB")
                if self._size > MOST_HELD:
                    raise Retry(f"all responses at a time were longer than {MOST_HELD >> 20} MiB")
        except BaseException:
            self.free(len(found))
            found.clear()  # the exception keeps it until garbage is collected
            raise
        return bytes(found)

    def free(self, size: int) -> None:
        """Count so many bytes as read."""
        with self._lock:
            self._size -= size


def json_in(answer: httpx.Response) -> Any:
    """The content of a response as JSON, which is UTF-8.

    Raises:
        ValueError: It is not JSON, nested too deeply, or has too many parts.
    """
    if any(answer.content.count(sign) > most for sign, most in _MOST_PARTS.items()):
        raise ValueError("has too many parts")
    try:
        with _READING:
            return json.loads(answer.content.decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
