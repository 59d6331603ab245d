"""A scan whose language model runs on a vLLM server, while this process encodes the pictures.

Each (picture, exit) is sent as `image_embeds` in a chat completion, with a `uuid` by which the server's cache
knows it again. The server returns the token ids of its prompt, which must be ours, and of its answer.
"""

from __future__ import annotations

import hashlib
import time
from array import array
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from layeralign._util.retry import Retry
from layeralign._util.text import printable
from layeralign.cases.case import Case
from layeralign.cases.pictures import data_url
from layeralign.decode.decoding import Decoding
from layeralign.decode.prompts import ended, prompt_tokens
from layeralign.decode.requests import Generation
from layeralign.decode.sampling import seed_of
from layeralign.decode.stream import Query, encoded, seen_by, windows, worded
from layeralign.errors import LayeralignError
from layeralign.judges.models.address import address, key_in
from layeralign.judges.models.content import json_in
from layeralign.judges.models.remote import KEY
from layeralign.judges.models.service import Failure, Service
from layeralign.runs.store import Row
from layeralign.sweep.settings import ScanSettings
from layeralign.sweep.sweep import rows
from layeralign.sweep.vllm.flow import MOST, Flow
from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm

if TYPE_CHECKING:
    import httpx

FAMILIES = (
    "internvl",
    "llava",
    "llava_next",
    "llava_onevision",
    "qwen2_5_vl",
    "qwen3_vl",
)
"""Families that a real vLLM answered from features at every exit; see benchmarks/vllm."""
BYTES_IN_FLIGHT = 2**29
"""Largest size of all requests in flight, in bytes."""
_ANSWER_S, _BUDGET_S = 600.0, 1800.0
"""Seconds that an answer may take, since a server compiles at its first request; and with all attempts."""
_MOST_IDS = 2**18
"""Most token ids of a prompt or an answer: the longest context of the families, that of Qwen3-VL."""
Part = dict[str, Any]
"""A part of a message's content."""


@dataclass(frozen=True)
class Said:
    """A server's answer.

    Attributes:
        prompt: Token ids of the prompt as the server read it.
        tokens: Token ids of the answer, with its end token.
        gaps: Per token, how much more probable it is than the next one, in nats; empty if not asked for.
    """

    prompt: Sequence[int]
    tokens: Sequence[int]
    gaps: Sequence[float] = ()


@dataclass(frozen=True)
class Asked:
    """What a request asks: the queries that its answer is for, and the prompt's token ids."""

    keys: tuple[Query, ...]
    ids: Sequence[int]


class Server:
    """A vLLM server.

    Attributes:
        service: The client.
        model: The model's name on the server.
        version: vLLM's version.
        longest: Largest number of tokens of prompt and answer together.
    """

    def __init__(self, endpoint: str) -> None:
        """Ask a server for its version and its models.

        Args:
            endpoint: Base URL such as http://localhost:8000/v1, after `MODEL@` if the server has several.

        Raises:
            LayeralignError: Nothing answers there, it is no vLLM, or it has not this model.
        """
        model, _, rest = endpoint.rpartition("@http")
        url = address(f"http{rest}" if model else endpoint, KEY)
        key = key_in(KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.service = Service(
            url.removesuffix("/v1"), headers, timeout=_ANSWER_S, budget=_BUDGET_S, workers=MOST
        )
        short = replace(self.service, attempts=3, timeout=10.0)
        try:
            told = [short.ask_all(path, [None], _object)[0] for path in ("/version", "/v1/models")]
        except LayeralignError as error:
            raise LayeralignError(f"{error}; expected a vLLM server") from None
        self.version, self.model, self.longest = _about(url, model, *told)

    def record(self) -> dict[str, str]:
        """What identifies the engine, for a run's identity."""
        return {"name": "vllm", "version": self.version, "model": self.model}

    def body(self, vlm: Vlm, case: Case, part: Part | None, decoding: Decoding, **more: Any) -> Part:
        """A request for an answer to a case, next to its picture as a part of the message."""
        return self.conversation(vlm, [message("user", part, case.prompt)], decoding, **more)

    def conversation(self, vlm: Vlm, messages: Sequence[Part], decoding: Decoding, **more: Any) -> Part:
        """A request for an answer to messages after the system prompt.

        Every setting is given, since vLLM takes absent ones from the model's generation_config.json.
        """
        system = [{"role": "system", "content": decoding.system}] if decoding.system else []
        return {
            "model": self.model,
            "messages": [*system, *messages],
            "add_special_tokens": not vlm.template_writes_bos,
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "stop_token_ids": sorted(vlm.eos_tokens),
            "skip_special_tokens": False,
            "return_token_ids": True,
        } | more

    def ask(self, bodies: Sequence[Part]) -> list[Said | Failure]:
        """Send requests; returns an answer or a failure for each, in order."""
        return self.service.ask_all("/v1/chat/completions", bodies, said_in)

    def answers(self, vlm: Vlm, asked: Sequence[Query], settings: ScanSettings) -> Iterator[list[Row]]:
        """Answer queries; yields their rows as they end.

        Raises:
            LayeralignError: The server read a prompt as other tokens, or requests failed for good; the rows
                of all others have been yielded.
        """
        failed: list[str] = []
        answered = time.monotonic()
        flow = Flow()
        requests = self._requests(vlm, asked, settings, flow)
        replies = self.service.ask_each("/v1/chat/completions", requests, said_in, lambda: flow.limit)
        for one, said in replies:
            flow.ended()
            why = said.why if isinstance(said, Failure) else self.wrong(vlm, one, said, settings.decoding)
            if isinstance(said, Failure) or why:
                failed.append(why)
                if time.monotonic() - answered > _BUDGET_S:
                    break  # it hangs, and each further request would take as long
                continue
            answered = time.monotonic()
            tokens, stopped = ended(vlm, said.tokens)
            made = Generation(one.keys, tokens, "stop" if stopped else "length")
            yield rows(worded(vlm, made, settings.decoding))
        if failed:
            raise LayeralignError(
                f"endpoint {self.service.url}: {len(failed)} requests failed ({failed[0]}); all others are "
                "kept, and the same command resumes the scan"
            )

    def wrong(self, vlm: Vlm, one: Asked, said: Said, decoding: Decoding, never: Sequence[int] = ()) -> str:
        """What is wrong with an answer's tokens, of which none may be in `never`; empty if nothing is.

        Raises:
            LayeralignError: The server's prompt has other tokens than ours.
        """
        self.check_prompt(one, said)
        tokens, stopped = ended(vlm, said.tokens)
        if len(tokens) > decoding.max_new_tokens or max(tokens, default=0) >= vlm.embedding_rows:
            return "an answer had more tokens than asked for, or unknown ones"
        if not stopped and len(tokens) != decoding.max_new_tokens:
            return "an answer had neither an end token nor the largest length"
        return "" if set(never).isdisjoint(tokens) else "an answer had a token that was not allowed"

    def check_prompt(self, one: Asked, said: Said) -> None:
        """Check that the server read the tokens that this process would read.

        Raises:
            LayeralignError: It did not.
        """
        if list(said.prompt) != list(one.ids):
            at = next(
                (n for n, pair in enumerate(zip(said.prompt, one.ids, strict=False)) if pair[0] != pair[1]),
                min(len(said.prompt), len(one.ids)),
            )
            raise LayeralignError(
                f"endpoint {self.service.url}: reads case {one.keys[0][0].id!r} as {len(said.prompt)} "
                f"tokens, and layeralign as {len(one.ids)}, which differ from token {at + 1} on; it has "
                "another chat template, tokenizer or date, or the text spells a special token"
            )

    def _requests(
        self, vlm: Vlm, asked: Iterable[Query], settings: ScanSettings, flow: Flow
    ) -> Iterator[tuple[Asked, Part]]:
        """A request for each answer; queries whose answers cannot differ share one."""
        decoding = settings.decoding
        for window in windows(asked):
            features = encoded(vlm, {seen_by(one): one for one in window})
            parts = {seen: features_part(vlm, one) if one else None for seen, one in features.items()}
            for feature in features.values():
                flow.at_most(BYTES_IN_FLIGHT // (2 * feature.nbytes) if feature else MOST)
            groups: dict[Any, list[Query]] = {}
            for one in window:
                name = (one[0].id, *one[1:]) if decoding.temperature else (one[0].id, seen_by(one))
                groups.setdefault(name, []).append(one)
            for keys in groups.values():
                case, seen = keys[0][0], seen_by(keys[0])
                ids = prompt_tokens(vlm, case, features[seen], decoding)
                self.check_length(case, len(ids), decoding)
                seed = seed_of(settings.seed, case.id, *keys[0][1:])
                yield Asked(tuple(keys), ids), self.body(vlm, case, parts[seen], decoding, seed=seed)

    def check_length(self, case: Case, tokens: int, decoding: Decoding) -> None:
        """Check that a prompt of so many tokens and its answer fit.

        Raises:
            LayeralignError: They do not.
        """
        if self.longest is not None and tokens + decoding.max_new_tokens > self.longest:
            raise LayeralignError(
                f"case {case.id!r}: its prompt of {tokens} tokens and an answer of {decoding.max_new_tokens} "
                f"exceed the {self.longest} positions of {self.service.url}; start it with a larger "
                "--max-model-len, or lower max_new_tokens"
            )


def message(role: str, part: Part | None, text: str) -> Part:
    """A message with a text, after a picture as a part if there is one."""
    return {"role": role, "content": [*([] if part is None else [part]), {"type": "text", "text": text}]}


def features_part(vlm: Vlm, feature: Feature) -> Part:
    """A picture's features as a part of a message.

    Its `uuid` is a hash of the features: a server returns what it knows under a uuid, whatever it is sent.
    """
    given = {name: value.detach().cpu().contiguous() for name, value in vlm.image_embeds(feature).items()}
    digest = hashlib.sha256()
    for value in given.values():
        digest.update(f"{value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.view(torch.uint8).numpy().tobytes())
    coded = {name: _base64(value) for name, value in given.items()}
    inside = coded if len(coded) > 1 else coded["image_embeds"]
    return {"type": "image_embeds", "image_embeds": inside, "uuid": digest.hexdigest()}


def picture_part(case: Case) -> Part | None:
    """A case's picture itself as a part of a message; None without a picture."""
    if case.picture is None:
        return None
    return {"type": "image_url", "image_url": {"url": data_url(case.picture.open().convert("RGB"), "PNG")}}


def _base64(value: Tensor) -> str:
    out = BytesIO()
    torch.save(value, out)
    return b64encode(out.getvalue()).decode()


def said_in(answer: httpx.Response) -> Said | Failure:
    """The answer in a response; a broken response raises `Retry`."""
    if answer.status_code != 200:
        return Failure(f"the server answered {answer.status_code}")
    try:
        made = json_in(answer)
        choice = made["choices"][0]
        prompt, tokens = _ids(made["prompt_token_ids"]), _ids(choice["token_ids"])
        each = (choice.get("logprobs") or {}).get("content") or []
        gaps = array("d", (_gap(one["logprob"], one["top_logprobs"]) for one in each))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        raise Retry("the reply had no token ids, as vLLM gives them for return_token_ids") from None
    return Said(prompt, tokens, gaps)


def _ids(given: Any) -> Sequence[int]:
    """Token ids, as few bytes: hundreds of answers may wait until they are looked at."""
    if isinstance(given, list) and len(given) <= _MOST_IDS and all(type(n) is int and n >= 0 for n in given):
        return array("i", given)
    raise ValueError("no token ids")


def _gap(chosen: Any, best: Sequence[Mapping[str, Any]]) -> float:
    """Distance between the lowest and the highest of the chosen token and the two best, in nats."""
    given = [float(chosen), *(float(one["logprob"]) for one in best[:2])]
    return max(given) - min(given) if all(map(isfinite, given)) else inf


def _object(answer: httpx.Response) -> Any:
    """The JSON object in a response; a failure if there is none."""
    if answer.status_code != 200:
        return Failure(f"the server answered {answer.status_code}")
    try:
        found = json_in(answer)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else Failure("the reply was no JSON object")


def _about(url: str, wanted: str, version: Any, models: Any) -> tuple[str, str, int | None]:
    """A server's version, its model's name, and the most tokens of prompt and answer together.

    A model whose name is longer than 200 characters or cannot be printed as it is does not exist.
    """
    if isinstance(version, Failure) or not isinstance(named := version.get("version"), str):
        raise LayeralignError(
            f"endpoint {url}: does not say its version as vLLM does; expected a vLLM server"
        )
    listed = [] if isinstance(models, Failure) else models.get("data")
    known = {
        one["id"]: one
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and isinstance(one.get("id"), str) and printable(one["id"], 200) == one["id"]
    }
    names = ", ".join(sorted(known)[:20])
    if wanted and wanted not in known:
        raise LayeralignError(
            f"endpoint {url}: has no model {printable(wanted, 80)}; it has {names or 'none'}"
        )
    if not wanted and len(known) != 1:
        raise LayeralignError(f"endpoint {url}: has the models {names or 'none'}; name one as MODEL@{url}")
    model = wanted or next(iter(known))
    longest = known[model].get("max_model_len")
    return printable(named, 40), model, longest if type(longest) is int and longest > 0 else None
