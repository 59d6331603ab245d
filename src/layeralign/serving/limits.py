"""Limits of the server, and the errors that clients see."""

from __future__ import annotations

from typing import Any

from layeralign.errors import LayeralignError

BODY = 16 * 2**20
"""Largest body of a request, in bytes."""
BODIES = 512 * 2**20
"""Bytes of all requests that are being read or wait for their answers."""
TURNS = 100
"""Most messages of a request."""
TEXT = 500_000
"""Most characters of a request's messages."""
ANSWERS = 32
"""Most answers to a request (`n`)."""
LONGEST = 1024
"""Default of the largest length of an answer, in tokens."""
STOPS = 16
"""Most stop texts of a request, and their longest, in characters, is `STOP`."""
STOP = 1000
QUEUE = 1024
"""Answers that wait or are being generated."""
FEATURES = 256 * 2**20
"""Bytes of pictures' features that are kept for further requests."""
CONNECTIONS = 2048
"""Open connections."""
SECONDS = 300.0
"""Time from a request's first byte to its answer."""
SLOW = 30.0
"""Time in which a request's body has to arrive, in seconds."""
DRAIN = 60
"""Time for the answers that are left when the server is stopped, in seconds."""
KEY = 16
"""Fewest characters of a key."""

_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class Refused(LayeralignError):
    """A request without an answer.

    Attributes:
        status: The HTTP status.
        param: The field of the request that is wrong.
        code: A name for programs.
    """

    def __init__(
        self, message: str, status: int = 400, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict[str, Any]:
        """The response, in OpenAI's schema."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}
