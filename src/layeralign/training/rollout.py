"""From (case, exit) rows to tensors: prompts, cached features, sampled answers, batches."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from layeralign.cases.case import Case
from layeralign.decode import stream
from layeralign.decode.decoding import Decoding
from layeralign.decode.prompts import prompt_tokens
from layeralign.decode.requests import Generation
from layeralign.errors import LayeralignError
from layeralign.vlm import finite
from layeralign.vlm.vlm import Feature, Vlm

CACHE_BYTES = 4 * 2**30
"""Features of pictures that are kept in memory; the longest unused go first."""

_TOGETHER = 32
"""Pictures that are encoded in one pass."""

Row = tuple[Case, int]
"""A case and the exit that it is put at."""


@dataclass(frozen=True)
class Batch:
    """R rows of up to W tokens, padded on the right; answers of up to T tokens at their ends.

    Attributes:
        ids: int64 [R, W], prompt and answer.
        prompt: bool [R, W], the prompts' tokens.
        features: per row, None without picture.
        states: int64 [R, T], index into W of the state in which each answer token was said.
        answers: int64 [R, T], the answer tokens; the pad token past the end.
        lengths: int64 [R], of the answers, at least 1.
    """

    ids: Tensor
    prompt: Tensor
    features: tuple[Feature | None, ...]
    states: Tensor
    answers: Tensor
    lengths: Tensor


class Features:
    """Picture features at the exits of a training, each computed once while memory lasts.

    The encoder is frozen, so features are data. What a picture gives in another batch may differ in its last
    bits, and a resumed training has to see the same ones: so, where all features fit into CACHE_BYTES,
    pictures are encoded in groups by the order of the cases, at all exits; where not, each alone, at the exit
    that is asked for.
    """

    def __init__(self, vlm: Vlm, cases: Sequence[Case], exits: Sequence[int]) -> None:
        self._vlm, self._exits = vlm, tuple(sorted(set(exits)))
        pictures = {case.picture.sha256: case.picture for case in cases if case.picture}
        self._pictures = list(pictures.values())
        self._kept: OrderedDict[tuple[int, int], list[Feature]] = OrderedDict()
        self._together, self._bytes = 1, 0
        if pictures:
            self._bytes = self._encode(0, (self._exits[0],))[self._exits[0]][0].nbytes
            if self._bytes * len(pictures) * len(self._exits) <= CACHE_BYTES:
                self._together = _TOGETHER
        self._place = {name: divmod(at, self._together) for at, name in enumerate(pictures)}

    def of(self, row: Row) -> Feature | None:
        """A row's picture at its exit; None without one."""
        case, exit = row
        if case.picture is None:
            return None
        group, at = self._place[case.picture.sha256]
        if (group, exit) in self._kept:
            self._kept.move_to_end((group, exit))
        else:
            made = self._encode(group, self._exits if self._together > 1 else (exit,))
            self._kept.update({(group, one): rows for one, rows in made.items()})
            while self._together == 1 and len(self._kept) > max(1, CACHE_BYTES // self._bytes):
                self._kept.popitem(last=False)
        return self._kept[group, exit][at]

    @torch.no_grad()
    def _encode(self, group: int, exits: Sequence[int]) -> dict[int, list[Feature]]:
        chosen = self._pictures[group * self._together : (group + 1) * self._together]
        states = self._vlm.encode([picture.open() for picture in chosen], exits)
        return {exit: [one.clone() for one in rows] for exit, rows in states.items()}


def collate(
    vlm: Vlm,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    features: Sequence[Feature | None],
) -> Batch:
    """Put prompts, answers and features of R rows into tensors.

    Args:
        vlm: the model.
        prompts: token ids per row.
        answers: token ids per row, the end token included, at least one.
        features: per row as from `Features.of`.
    """
    width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    longest = max(map(len, answers))
    ids = torch.full((len(prompts), width), vlm.pad_token)
    said = torch.full((len(prompts), longest), vlm.pad_token)
    asked = torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[row, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
        said[row, : len(answer)] = torch.tensor(answer)
        asked[row, : len(prompt)] = True
    starts = torch.tensor([len(prompt) - 1 for prompt in prompts])
    states = (starts[:, None] + torch.arange(longest)).clamp(max=width - 1)
    lengths = torch.tensor([len(answer) for answer in answers])
    ids, asked, states, said, lengths = (t.to(vlm.device) for t in (ids, asked, states, said, lengths))
    return Batch(ids, asked, tuple(features), states, said, lengths)


def prompts(
    vlm: Vlm, rows: Sequence[Row], features: Sequence[Feature | None], decoding: Decoding
) -> list[list[int]]:
    """Token ids of each row's prompt.

    Raises:
        LayeralignError: one is so long that what it says depends on those beside it (`Vlm.regime`).
    """
    made = []
    for (case, _), feature in zip(rows, features, strict=True):
        line = prompt_tokens(vlm, case, feature, decoding)
        if vlm.regime(len(line), decoding.max_new_tokens, feature) != "short":
            raise LayeralignError(
                f"case {case.id!r}: has {len(line)} tokens and an answer of up to "
                f"{decoding.max_new_tokens}, past "
                f"which the rotary embeddings of model {vlm.checkpoint.name} look at the longest row of "
                f"a batch, so "
                "it cannot be trained on in one; shorten it, or allow fewer new tokens"
            )
        made.append(line)
    return made


def answers(
    vlm: Vlm, rows: Sequence[Row], features: Sequence[Feature | None], decoding: Decoding, **how: Any
) -> list[Generation[int]]:
    """What the model says to each row, as `stream.respond`, which `how` is for; no special token but its end.

    Raises:
        LayeralignError: logits are not finite: there is nothing to learn from.
    """
    lines = prompts(vlm, rows, features, decoding)
    made = stream.respond(vlm, lines, features, decoding, suppressed=vlm.unsayable, **how)
    failed = {exit for (_, exit), said in zip(rows, made, strict=True) if said.finish_reason == "non-finite"}
    if failed:
        raise finite.failure(vlm, map(vlm.exits.name, sorted(failed)))
    return made
