"""Rollouts of a training on a vLLM server, which gets each step's adapter and this process's features."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from layeralign.cases.case import Case
from layeralign.decode.decoding import Decoding
from layeralign.decode.prompts import ended
from layeralign.decode.requests import Generation
from layeralign.errors import LayeralignError
from layeralign.judges.models.service import Failure
from layeralign.sweep.vllm.flow import Flow
from layeralign.sweep.vllm.handshake import compare_one, shake
from layeralign.sweep.vllm.server import BYTES_IN_FLIGHT, Asked, Part, Server, features_part, said_in
from layeralign.training.data.features import Row
from layeralign.training.data.rollout import prompts
from layeralign.training.policy import Policy
from layeralign.training.rollouts import Rollouts
from layeralign.training.state.record import ROLLOUTS
from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm

if TYPE_CHECKING:
    import httpx


class VllmRollouts(Rollouts):
    """A vLLM server that samples the rollouts.

    It reads each step's adapter from the training's folder, under a name that it never had before, since its
    cache knows what a prompt gave with an adapter by the adapter's name.
    """

    def __init__(self, server: Server) -> None:
        self._server, self._flow = server, Flow()
        self._folder: Path

    def record(self) -> dict[str, Any]:
        """See `Rollouts.record`."""
        return self._server.record()

    def begin(self, policy: Policy, cases: Sequence[Case], decoding: Decoding, out: Path) -> None:
        """See `Rollouts.begin`; a drawn adapter shows a server that ignores adapters."""
        self._folder = out / ROLLOUTS
        shutil.rmtree(self._folder, ignore_errors=True)  # of a training that was killed
        with self._loaded(policy) as server:
            shake(server, policy.vlm, cases, decoding)
        with policy.drawn(), self._loaded(policy) as server:
            compare_one(server, policy.vlm, (cases[0], policy.vlm.exits.default), decoding)

    def sample(
        self,
        policy: Policy,
        rows: Sequence[Row],
        features: Sequence[Feature | None],
        decoding: Decoding,
        seeds: Sequence[int],
    ) -> list[Generation[int]]:
        """See `Rollouts.sample`; sampled answers are vLLM's own draws. One greedy answer is checked, too."""
        vlm, never, found = policy.vlm, policy.vlm.unsayable, {}
        lines = prompts(vlm, rows, features, decoding)
        asked = [Asked(((*row, 0),), line) for row, line in zip(rows, lines, strict=True)]
        with self._loaded(policy) as server:
            each = zip(asked, features, seeds, strict=True)
            bodies = enumerate(self._bodies(server, vlm, each, decoding))
            for number, said in server.service.ask_each(
                "/v1/chat/completions", bodies, said_in, lambda: self._flow.limit
            ):
                self._flow.ended()
                if isinstance(said, Failure):
                    raise _failed(server, said.why)
                if why := server.wrong(vlm, asked[number], said, decoding, never):
                    raise _failed(server, why)
                tokens, stopped = ended(vlm, said.tokens)
                found[number] = Generation((number,), tokens, "stop" if stopped else "length")
            compare_one(server, vlm, rows[0], decoding)
        return [found[number] for number in range(len(rows))]

    def _bodies(
        self,
        server: Server,
        vlm: Vlm,
        each: Iterable[tuple[Asked, Feature | None, int]],
        decoding: Decoding,
    ) -> Iterator[Part]:
        """The request of each prompt, feature and seed.

        It names all allowed tokens. vLLM's `logit_bias` would be shorter, but not exact, and its `bad_words`
        are strings.
        """
        allowed = sorted(set(range(vlm.head.weight.shape[0])).difference(vlm.unsayable))
        for asked, feature, seed in each:
            case = asked.keys[0][0]
            server.check_length(case, len(asked.ids), decoding)
            if feature:
                self._flow.at_most(BYTES_IN_FLIGHT // (2 * feature.nbytes))
            part = features_part(vlm, feature) if feature else None
            yield server.body(vlm, case, part, decoding, seed=seed, allowed_token_ids=allowed)

    @contextmanager
    def _loaded(self, policy: Policy) -> Iterator[Server]:
        """The server as one of the policy as it is now."""
        server = copy(self._server)
        server.model = f"layeralign-{token_hex(8)}"
        folder = self._folder.resolve() / server.model
        policy.save(folder)
        config: Any = policy.peft.peft_config["default"]
        needs = (
            "rollouts need a server with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment, "
            f"--enable-lora and --max-lora-rank {config.r} or more, which can "
            f"read {folder.parent}"
        )
        self._tell("load", {"lora_name": server.model, "lora_path": str(folder)}, needs)
        yield server
        self._tell("unload", {"lora_name": server.model}, "it was restarted; repeat the command")
        shutil.rmtree(self._folder)

    def _tell(self, what: str, body: Part, needs: str) -> None:
        """Load or unload an adapter; `needs` ends the error's sentence."""
        service = replace(self._server.service, attempts=3)
        try:
            (told,) = service.ask_all(f"/v1/{what}_lora_adapter", [body], _done)
        except LayeralignError as error:
            raise LayeralignError(f"{error}; {needs}") from None
        if isinstance(told, Failure):
            raise LayeralignError(f"endpoint {service.url}: did not {what} the adapter ({told.why}); {needs}")


def _failed(server: Server, why: str) -> LayeralignError:
    return LayeralignError(
        f"endpoint {server.service.url}: a rollout failed ({why}); the same command resumes the training"
    )


def _done(answer: httpx.Response) -> bool | Failure:
    return answer.status_code == 200 or Failure(f"the server answered {answer.status_code}")
