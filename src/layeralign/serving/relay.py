"""Requests of the server's clients, answered by a vLLM server; this process only encodes their pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace

from layeralign._util.text import printable
from layeralign.decode.decoding import Decoding
from layeralign.decode.prompts import ended
from layeralign.decode.requests import Generation, Prompt, Request, Wanted
from layeralign.errors import LayeralignError
from layeralign.judges.models.service import Failure
from layeralign.serving.limits import SECONDS
from layeralign.serving.requests import Asked
from layeralign.serving.scheduler import Key
from layeralign.sweep.vllm import server as vllm
from layeralign.sweep.vllm.handshake import shake
from layeralign.testbed.cases import cases
from layeralign.vlm.vlm import Vlm

AGAIN = 30.0
"""Seconds that the server has for its answers at the end, since a stop should not wait for it."""
_LOOK = 0.02
"""Seconds after which a new request is looked for while others are being answered."""


class Relay:
    """An engine of the scheduler: it sends each request on, with picture features."""

    def __init__(self, vlm: Vlm, server: vllm.Server, decoding: Decoding) -> None:
        """See that the server computes this model, as before a scan.

        Args:
            vlm: The model; its language model may be on disk.
            server: The vLLM server.
            decoding: Settings of a request that names no others.

        Raises:
            LayeralignError: The server does not compute this model.
        """
        self._vlm, self._server = vlm, server
        self._service = replace(server.service, attempts=3, timeout=SECONDS, budget=SECONDS)
        self._shaken = shake(server, vlm, cases("dev", 8), decoding)

    def record(self) -> dict[str, str]:
        """What identifies the engine, for the identity of a log."""
        return self._server.record()

    def again(self) -> None:
        """See that the server still computes this model.

        Raises:
            Changed: It does not.
            LayeralignError: A request failed.
        """
        self._server.service = replace(self._service, timeout=AGAIN, budget=AGAIN)
        self._shaken.again(self._server)

    def run(self, requests: Iterable[Request[Key]]) -> Iterator[list[Generation[Key]]]:
        """Yield answers as they end, until there is no request and none is being answered.

        A request that fails has the finish reason `failed`, and the reason is printed.

        Raises:
            LayeralignError: The server cannot be reached, or refuses access.
        """
        sent: dict[Future[vllm.Said | Failure], tuple[Prompt[Key], Wanted[Key]]] = {}
        coming = iter(requests)
        with self._service.talking("/v1/chat/completions", vllm.said_in) as send:
            while True:
                while (request := next(coming, None)) is not None:
                    (prompt,) = request.prompts
                    for wanted in prompt.wanted:
                        sent[send(self._body(prompt, wanted))] = prompt, wanted
                if all(job.gone for _, wanted in sent.values() for job, _ in wanted.keys):
                    yield [Generation(wanted.keys, [], "failed") for _, wanted in sent.values()]
                    return
                done = wait(sent, timeout=_LOOK, return_when=FIRST_COMPLETED).done
                if done:
                    yield [self._made(*sent.pop(one), one.result()) for one in done]

    def _body(self, prompt: Prompt[Key], wanted: Wanted[Key]) -> vllm.Part:
        ((job, _),) = wanted.keys
        asked: Asked = job.asked
        part = vllm.features_part(self._vlm, prompt.feature) if prompt.feature else None
        turns = [vllm.message(turn.role, part if turn.picture else None, turn.text) for turn in asked.turns]
        return self._server.conversation(self._vlm, turns, asked.decoding, seed=wanted.seed)

    def _made(self, prompt: Prompt[Key], wanted: Wanted[Key], reply: vllm.Said | Failure) -> Generation[Key]:
        ((job, _),) = wanted.keys
        why = reply.why if isinstance(reply, Failure) else self._wrong(job.asked, prompt.ids, reply)
        if isinstance(reply, Failure) or why:
            print(printable(f"layeralign: serve: a request failed: {why}"), file=sys.stderr)
            return Generation(wanted.keys, [], "failed")
        tokens, stopped = ended(self._vlm, reply.tokens)
        return Generation(wanted.keys, tokens, "stop" if stopped else "length")

    def _wrong(self, asked: Asked, ids: Sequence[int], said: vllm.Said) -> str:
        """What is wrong with an answer or with how its prompt was read; empty if nothing is."""
        query = vllm.Asked(((asked.case, asked.exit, 0),), ids)
        try:
            return self._server.wrong(self._vlm, query, said, asked.decoding)
        except LayeralignError as error:
            return str(error)
