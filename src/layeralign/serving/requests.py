"""A request for a chat completion, read from untrusted JSON in OpenAI's format.

A field that could change the answer is followed or refused, never ignored.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import Field

from layeralign._util.text import json_of, printable
from layeralign._util.validation import Filled, Record, Text, shown, validated
from layeralign.cases import pictures
from layeralign.cases.case import Case, Kind, Picture
from layeralign.decode.decoding import Decoding
from layeralign.errors import LayeralignError
from layeralign.exits import Exits
from layeralign.serving.limits import ANSWERS, STOP, STOPS, TEXT, TURNS, Refused

_NO_EFFECT = frozenset({
    "user", "safety_identifier", "store", "service_tier", "prompt_cache_key", "prompt_cache_retention",
    "parallel_tool_calls",
})  # fmt: skip
"""Fields that do not change an answer of this server."""
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,), "presence_penalty": (0,), "logprobs": (False,), "top_logprobs": (0,),
    "logit_bias": ({},), "tools": ([],), "functions": ([],), "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},), "modalities": (["text"],),
}  # fmt: skip
"""Fields that the server does not support -> the values that ask for nothing."""
_DATA_URL = re.compile(r"data:image/[\w.+-]{1,40};base64,", re.ASCII)
_SEED = 2**63 - 1

Size = Annotated[int, Field(ge=1, le=10**9)]


class _Body(Record):
    model: Filled = Field(description="a model and an exit, such as M@18", max_length=1000)
    messages: list[Any] = Field(description=f"1 to {TURNS} messages", min_length=1, max_length=TURNS)
    n: int = Field(1, ge=1, le=ANSWERS, description=f"1 to {ANSWERS} answers")
    seed: int | None = Field(None, ge=-_SEED, le=_SEED, description="a whole number of 64 bits")
    temperature: float | None = Field(None, ge=0, le=100, description="0 (greedy) to 100")
    top_p: float | None = Field(None, gt=0, le=1, description="more than 0 and at most 1")
    max_tokens: Size | None = Field(None, description="a number of tokens, at least 1")
    max_completion_tokens: Size | None = Field(None, description="a number of tokens, at least 1")
    stop: Text | list[Text] | None = Field(None, description=f"a text, or up to {STOPS} texts")
    stream: bool = Field(False, description="true or false")
    stream_options: dict[Text, bool] | None = Field(None, description='{"include_usage": true or false}')
    metadata: dict[Text, Annotated[Text, Field(max_length=1000)]] | None = Field(
        None, description="an object of texts of up to 1000 characters"
    )


class _Message(Record):
    role: Literal["system", "developer", "user", "assistant"] = Field(
        description="system, developer, user or assistant"
    )
    content: Text | list[Any] = Field(description="a text, or a list of parts")


class _TextPart(Record):
    type: Literal["text"] = Field(description="text or image_url")
    text: Text = Field(description="a text")


class _PicturePart(Record):
    type: Literal["image_url"] = Field(description="text or image_url")
    image_url: dict[Text, Text] = Field(description='{"url": a data URL}')


@dataclass(frozen=True)
class Turn:
    """A message of the conversation."""

    role: str
    text: str
    picture: bool = False

    def message(self) -> dict[str, Any]:
        """The message for a chat template; a picture goes before the text, as in a scan."""
        picture = [{"type": "image"}] if self.picture else []
        return {"role": self.role, "content": [*picture, {"type": "text", "text": self.text}]}


@dataclass(frozen=True)
class Asked:
    """What a request asks.

    Attributes:
        model: The model's name in the request.
        exit: The exit.
        turns: The conversation after the system prompt; the last turn is the user's.
        decoding: How to decode, with the system prompt.
        stop: Texts before which an answer ends.
        n: Number of answers.
        seed: Seed of sampling; None for another one each time.
        stream: Whether the answer is sent as it is generated.
        usage: Whether a stream ends with the number of tokens.
        case: The request as a case of a run, without its exit.
    """

    model: str
    exit: int
    turns: tuple[Turn, ...]
    decoding: Decoding
    stop: tuple[str, ...]
    n: int
    seed: int | None
    stream: bool
    usage: bool
    case: Case


@dataclass(frozen=True)
class Offer:
    """What the server serves.

    Attributes:
        name: The model's name in requests.
        exits: Its exits.
        decoding: The settings of a request that names no others.
        longest: The largest length of an answer, in tokens.
    """

    name: str
    exits: Exits
    decoding: Decoding
    longest: int

    @property
    def models(self) -> list[str]:
        """The names of all models: the default exit's, and each exit's."""
        exits = (self.exits.name(exit) for exit in self.exits.all)
        return [self.name, *(f"{self.name}@{exit}" for exit in ("default", *exits))]

    def exit_of(self, model: str) -> int:
        """The exit that a model's name picks.

        Raises:
            Refused: There is no such model or exit, or the name has several exits.
        """
        name = printable(repr(model), 80)
        spec = model.removeprefix(f"{self.name}@") if model != self.name else "default"
        if spec == model:
            raise Refused(
                f"model {name}: is not served here; expected {self.name}, or {self.name}@EXIT", 404, "model",
                "model_not_found",
            )  # fmt: skip
        try:
            exits = self.exits.parse(spec[:100])
        except LayeralignError as error:
            raise Refused(f"model {name}: {error}", 404, "model", "model_not_found") from error
        if len(exits) != 1:
            what = f"model {name}: names {len(exits)} exits; expected one, such as {self.name}@default"
            raise Refused(what, 404, "model", "model_not_found")
        return exits[0]


def served_name(given: str) -> str:
    """A model's name in requests: that of the hub, or the last part of a folder's path."""
    folder = Path(given).expanduser()
    return folder.resolve().name if folder.is_dir() else given


def read(body: bytes, offer: Offer) -> Asked:
    """Read a request.

    Raises:
        Refused: The request is invalid, or asks for something that the server does not support.
    """
    try:
        content = json_of(body.decode(), "request")
    except UnicodeDecodeError as error:
        raise Refused("request: is not UTF-8") from error
    except LayeralignError as error:
        raise Refused(printable(str(error)[:300])) from error
    if not isinstance(content, dict):
        raise Refused(f"request: expected a JSON object, found {type(content).__name__}")
    given = _record(_Body, {name: value for name, value in content.items() if _matters(name, value)})
    turns, system, picture = _conversation(given.messages)
    decoding = _decoding(given, offer, system)
    stop = _stops(given.stop)
    case = _case(turns, system, picture, decoding, stop, given.metadata or {})
    usage = _usage(given.stream_options, given.stream)
    return Asked(
        given.model, offer.exit_of(given.model), turns, decoding, stop, given.n, given.seed, given.stream,
        usage, case,
    )  # fmt: skip


def _matters(name: str, value: Any) -> bool:
    """Whether a field has an effect.

    Raises:
        Refused: It has one that the server does not support.
    """
    if value is None or name in _NO_EFFECT:
        return False
    if name not in _NEUTRAL:
        return True
    if any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in _NEUTRAL[name]):
        return False
    raise Refused(f"field {name!r}: is not supported by this server; remove it", 400, name, "unsupported")


R = TypeVar("R", bound=Record)


def _record(model: type[R], content: Any, place: str = "request") -> R:
    """Validate an object of the request.

    Raises:
        Refused: A field is missing, unknown or invalid.
    """
    fields: list[str] = []

    def where(field: str) -> str:
        fields.append(field)
        return place

    try:
        return validated(model, content, where)
    except LayeralignError as error:
        param = fields[-1] if fields else ""
        inside = "" if place == "request" else f"{place}."
        raise Refused(str(error), 400, f"{inside}{printable(param[:60])}".rstrip(".") or None) from error


# --- the conversation


def _conversation(messages: list[Any]) -> tuple[tuple[Turn, ...], str, Picture | None]:
    """The turns, the system prompt and the picture."""
    system, picture, turns = "", None, []
    for at, message in enumerate(messages):
        place = f"messages[{at}]"
        kept = {k: v for k, v in message.items() if v is not None} if isinstance(message, dict) else message
        given = _record(_Message, kept, place)
        texts, found = _parts(given.content, place)
        if found and (picture or given.role != "user"):
            why = "has a second picture; expected one" if picture else "has a picture; only a user's may"
            raise Refused(f"{place}: {why}", 400, "messages")
        picture = picture or found
        text = "\n".join(texts)
        if given.role in ("system", "developer"):
            if at:
                raise Refused(f"{place}: is a system message; expected it first, once", 400, "messages")
            system = text
        else:
            turns.append(Turn(given.role, text, picture=found is not None))
    if len(system) + sum(len(turn.text) for turn in turns) > TEXT:
        raise Refused(f"messages: have more than {TEXT} characters, the limit", 400, "messages")
    if not turns or turns[-1].role != "user":
        raise Refused("messages: expected a user's message at the end", 400, "messages")
    return tuple(turns), system, picture


def _parts(content: str | list[Any], place: str) -> tuple[list[str], Picture | None]:
    """The texts and the picture of a message."""
    if isinstance(content, str):
        return [content], None
    texts, picture = [], None
    for at, part in enumerate(content):
        where = f"{place}.content[{at}]"
        if not isinstance(part, dict) or part.get("type") != "image_url":
            texts.append(_record(_TextPart, part, where).text)
        elif picture:
            raise Refused(f"{where}: is a second picture; expected one in a request", 400, "messages")
        else:
            picture = _picture(_record(_PicturePart, part, where).image_url, where)
    return texts, picture


def _picture(given: Mapping[str, str], where: str) -> Picture:
    more = {**given}
    url, detail = more.pop("url", ""), more.pop("detail", "auto")
    if more or detail != "auto":
        raise Refused(f"{where}: expected url, and detail auto or none", 400, "messages", "unsupported")
    if not (start := _DATA_URL.match(url)):
        raise Refused(
            f"{where}: its url {shown(url[:40])} is not a data URL; expected data:image/png;base64,..., "
            "since the server fetches nothing", 400, "messages", "unsupported",
        )  # fmt: skip
    try:
        return pictures.sent(b64decode(url[start.end() :], validate=True), where)
    except NotBase64 as error:
        raise Refused(f"{where}: its data URL is not base64 ({error})", 400, "messages") from error
    except LayeralignError as error:
        raise Refused(printable(str(error), 300), 400, "messages", "invalid_image") from error


# --- decoding


def _decoding(given: _Body, offer: Offer, system: str) -> Decoding:
    name = "max_tokens" if given.max_completion_tokens is None else "max_completion_tokens"
    longest = getattr(given, name)
    if longest is not None and longest > offer.longest:
        raise Refused(f"{name} {longest}: the limit of this server is {offer.longest}", 400, name)
    if None not in (given.max_tokens, given.max_completion_tokens):
        raise Refused("max_tokens: expected it or max_completion_tokens, not both", 400, "max_tokens")
    asked = {"temperature": given.temperature, "top_p": given.top_p, "max_new_tokens": longest}
    made = replace(offer.decoding, **{key: value for key, value in asked.items() if value is not None})
    return replace(made, system=system) if system else made


def _stops(given: str | list[str] | None) -> tuple[str, ...]:
    stops = () if given is None else (given,) if isinstance(given, str) else tuple(given)
    if len(stops) > STOPS or not all(0 < len(stop) <= STOP for stop in stops):
        raise Refused(f"stop: expected up to {STOPS} texts of 1 to {STOP} characters", 400, "stop")
    return stops


def _usage(options: Mapping[str, bool] | None, stream: bool) -> bool:
    if options and not stream:
        raise Refused("stream_options: expected only with stream", 400, "stream_options")
    if unknown := sorted((options or {}).keys() - {"include_usage", "include_obfuscation"}):
        raise Refused(f"stream_options: {printable(unknown[0][:60])} is unknown", 400, "stream_options")
    return bool((options or {}).get("include_usage"))


# --- the request as a case


def _case(
    turns: tuple[Turn, ...], system: str, picture: Picture | None, decoding: Decoding, stop: tuple[str, ...],
    metadata: Mapping[str, str],
) -> Case:  # fmt: skip
    """The case of a request; its id is the hash of all that it has, and of the settings."""
    kind, category = metadata.get("kind", "harmful"), metadata.get("category", "")
    if kind not in ("harmful", "benign"):
        raise Refused(f"metadata: its kind is {shown(kind)}; expected harmful or benign", 400, "metadata")
    facts: dict[str, Any] = {"served": decoding.record() | {"stop": list(stop)}}
    if len(turns) > 1:
        facts["turns"] = [[turn.role, turn.text, turn.picture] for turn in turns]
    prompt = turns[0].text
    if len(turns) > 1:  # judges read the whole conversation
        prompt = "\n\n".join(f"{turn.role.capitalize()}: {turn.text}" for turn in turns)
    about = [prompt, picture and picture.sha256, kind, facts, *filter(None, [category])]
    id = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
    return Case(id, prompt, cast(Kind, kind), picture, category, None, facts)
