"""Client for servers with OpenAI's API: chat completions, and completions of a whole prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from math import isfinite
from typing import TYPE_CHECKING, Any

from layeralign._util.retry import Retry
from layeralign.errors import LayeralignError
from layeralign.judges.models.address import address, key_in
from layeralign.judges.models.content import json_in
from layeralign.judges.models.service import Failure, Service

if TYPE_CHECKING:
    import httpx

KEY = "LAYERALIGN_API_KEY"
"""Environment variable with the server's key; a local server needs none."""

Message = dict[str, Any]
Talk = list[Message] | str
"""Messages for a chat template, or the whole prompt of a model without one."""
MAX_TEXT = 2**18
"""Longest reply, in characters: 32 for each token of the longest one that is asked for."""
_ENDED = ("stop", "eos_token", "stop_sequence")
"""`finish_reason` of a complete reply: OpenAI's, and the two of Text Generation Inference."""


@dataclass(frozen=True)
class Completion:
    """A reply to a conversation.

    Attributes:
        text: Text of the reply.
        ended: Whether the model ended the reply. False if it was cut off or the server does not say.
        log_probs: For each token of the reply, the largest log-probabilities, in nats; empty where the
            request did not ask for them or the server gives none.
    """

    text: str
    ended: bool
    log_probs: Sequence[Sequence[float]] = ()


@dataclass(frozen=True)
class Endpoint:
    """A model on a server; `model` is its name on the server."""

    service: Service
    model: str

    @classmethod
    def of(cls, url: str, model: str, **settings: Any) -> Endpoint:
        """An endpoint with the key from the environment, if there is one.

        Args:
            url: Base URL, such as http://localhost:8000/v1.
            model: The model's name on the server.
            settings: Retry settings; see `Service`.

        Raises:
            LayeralignError: `url` is not an http or https address, or contains a key.
        """
        key = key_in(KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return cls(Service(address(url, KEY), headers, **settings), model)

    def record(self) -> dict[str, Any]:
        """The record that identifies the endpoint, without the key."""
        return {"endpoint": self.service.url, "model": self.model}

    def ask_all(self, conversations: Sequence[Talk], **settings: Any) -> list[Completion | Failure]:
        """Answer each conversation, in order, with a reply or a failure.

        Args:
            conversations: Messages of each conversation, or each a whole prompt, which the server completes.
            settings: Further fields of the request, such as `max_tokens`.

        Raises:
            LayeralignError: The server refuses the key or has no such model; no further requests are sent.
        """
        whole = bool(conversations) and isinstance(conversations[0], str)
        field, path = ("prompt", "/completions") if whole else ("messages", "/chat/completions")
        bodies = [{"model": self.model, field: one, "temperature": 0, **settings} for one in conversations]
        try:
            return self.service.ask_all(path, bodies, _text if whole else _reply)
        except LayeralignError as error:
            raise LayeralignError(f"{error} ({self.model})") from None


def _reply(answer: httpx.Response) -> Completion | Failure:
    """The chat completion in a response; a broken response raises `Retry`."""
    return _completion(answer, lambda choice: choice["message"]["content"])


def _text(answer: httpx.Response) -> Completion | Failure:
    """The completion of a prompt in a response; a broken response raises `Retry`."""
    return _completion(answer, lambda choice: choice["text"])


def _completion(answer: httpx.Response, text_of: Callable[[Any], Any]) -> Completion | Failure:
    if answer.status_code != HTTPStatus.OK:
        return Failure(f"the server answered {answer.status_code}")
    try:
        choice = json_in(answer)["choices"][0]
        text, end = text_of(choice), choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Retry("the reply was not a valid completion") from None
    if end == "content_filter":
        return Failure("the server's content filter blocked the reply")
    if not isinstance(text, str):
        return Failure("the reply had no text")
    if len(text) > MAX_TEXT:  # those of many requests are in memory together
        raise Retry(f"the reply was longer than {MAX_TEXT:,} characters")
    return Completion(text, end in _ENDED, _log_probs(choice.get("logprobs")))


def _log_probs(told: Any) -> tuple[tuple[float, ...], ...]:
    """The largest log-probabilities of each token, from OpenAI's form; empty if one is missing or invalid."""
    try:
        found = tuple(
            tuple(float(top["logprob"]) for top in token["top_logprobs"]) for token in told["content"]
        )
    except (LookupError, TypeError, ValueError, OverflowError):
        return ()
    return found if all(each and all(map(isfinite, each)) for each in found) else ()
