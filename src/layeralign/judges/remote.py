"""Any server that speaks OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from layeralign._util.retry import Retry
from layeralign.errors import LayeralignError
from layeralign.judges.service import Failure, Service, address, key_in

KEY = "LAYERALIGN_API_KEY"
"""The environment variable with the server's key; a server on this machine needs none."""

Message = dict[str, Any]
_ENDED = ("stop", "eos_token", "stop_sequence")
"""`finish_reason` of a reply that the model ended: OpenAI's, and the two of Text Generation Inference."""


@dataclass(frozen=True)
class Completion:
    """A reply to a conversation.

    Attributes:
        text: of the reply.
        ended: whether the model ended it. False where it was cut off, and where that cannot be told.
    """

    text: str
    ended: bool


@dataclass(frozen=True)
class Endpoint:
    """A model on a server; `model` is what the server calls it."""

    service: Service
    model: str

    @classmethod
    def of(cls, url: str, model: str, **settings: Any) -> Endpoint:
        """An endpoint whose key, if any, is in the environment.

        Args:
            url: base, as http://localhost:8000/v1.
            model: as the server calls it.
            settings: how patient it is; see `Service`.

        Raises:
            LayeralignError: `url` is no http or https address, or carries a key.
        """
        key = key_in(KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return cls(Service(address(url, KEY), headers, **settings), model)

    def record(self) -> dict[str, Any]:
        """What identifies it; no key."""
        return {"endpoint": self.service.url, "model": self.model}

    def ask_all(
        self, conversations: Sequence[Sequence[Message]], **settings: Any
    ) -> list[Completion | Failure]:
        """A reply, or a failure, to each conversation, in their order.

        Args:
            conversations: messages each.
            settings: what the request says besides, as `max_tokens`.

        Raises:
            LayeralignError: the server does not take the key, or has no such model; nothing is asked further.
        """
        bodies = [
            {"model": self.model, "messages": list(one), "temperature": 0, **settings}
            for one in conversations
        ]
        try:
            return self.service.ask_all("/chat/completions", bodies, _reply)
        except LayeralignError as error:
            raise LayeralignError(f"{error} ({self.model})") from None


def _reply(answer: httpx.Response) -> Completion | Failure:
    """The completion in a response; a broken one is asked for again."""
    if answer.status_code != httpx.codes.OK:
        return Failure(f"the server answered {answer.status_code}")
    try:
        choice = answer.json()["choices"][0]
        text, end = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Retry("the reply was no completion") from None
    if end == "content_filter":
        return Failure("the server's own filter held the reply back")
    if not isinstance(text, str):
        return Failure("the reply had no text")
    return Completion(text, end in _ENDED)
