"""Conversion of (case, exit) rows to prompts, generated answers and padded tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from layeralign.decode import stream
from layeralign.decode.decoding import Decoding
from layeralign.decode.prompts import prompt_tokens
from layeralign.decode.requests import Generation
from layeralign.errors import LayeralignError
from layeralign.training.data.features import Row
from layeralign.vlm import finite
from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm


@dataclass(frozen=True)
class Batch:
    """R rows of up to W tokens, padded on the right; each ends in an answer of up to T tokens.

    Attributes:
        ids: int64 [R, W], prompt and answer.
        prompt: bool [R, W], the prompts' tokens.
        features: one per row, None for a row without a picture.
        states: int64 [R, T], index into W of the state that predicts each answer token.
        answers: int64 [R, T], the answer tokens, padded with the pad token.
        lengths: int64 [R], the answers' lengths, at least 1.
    """

    ids: Tensor
    prompt: Tensor
    features: tuple[Feature | None, ...]
    states: Tensor
    answers: Tensor
    lengths: Tensor


def collate(
    vlm: Vlm,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    features: Sequence[Feature | None],
) -> Batch:
    """Return prompts, answers and features of R rows as tensors.

    Args:
        vlm: the model.
        prompts: token ids per row.
        answers: token ids per row, the end token included, at least one token.
        features: one per row, from `Features.of`.
    """
    width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    longest = max(map(len, answers))
    ids = torch.full((len(prompts), width), vlm.pad_token)
    answer_ids = torch.full((len(prompts), longest), vlm.pad_token)
    in_prompt = torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[row, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
        answer_ids[row, : len(answer)] = torch.tensor(answer)
        in_prompt[row, : len(prompt)] = True
    starts = torch.tensor([len(prompt) - 1 for prompt in prompts])
    states = (starts[:, None] + torch.arange(longest)).clamp(max=width - 1)
    lengths = torch.tensor([len(answer) for answer in answers])
    ids, in_prompt, states, answer_ids, lengths = (
        tensor.to(vlm.device) for tensor in (ids, in_prompt, states, answer_ids, lengths)
    )
    return Batch(ids, in_prompt, tuple(features), states, answer_ids, lengths)


def prompts(
    vlm: Vlm, rows: Sequence[Row], features: Sequence[Feature | None], decoding: Decoding
) -> list[list[int]]:
    """Return the token ids of each row's prompt.

    Raises:
        LayeralignError: a prompt is so long that its answer depends on the rest of the batch (`Vlm.regime`).
    """
    made = []
    for (case, _), feature in zip(rows, features, strict=True):
        tokens = prompt_tokens(vlm, case, feature, decoding)
        if vlm.regime(len(tokens), decoding.max_new_tokens, feature) != "short":
            raise LayeralignError(
                f"case {case.id!r}: has {len(tokens)} tokens and an answer of up to "
                f"{decoding.max_new_tokens}. Past this length the rotary embeddings of model "
                f"{vlm.checkpoint.name} depend on the longest row of a batch, so the case cannot be trained "
                "on in a batch; shorten it, or allow fewer new tokens"
            )
        made.append(tokens)
    return made


def answers(
    vlm: Vlm, rows: Sequence[Row], features: Sequence[Feature | None], decoding: Decoding, **options: Any
) -> list[Generation[int]]:
    """Generate an answer to each row, without special tokens except the end token.

    `options` are those of `stream.respond`.

    Raises:
        LayeralignError: some logits are not finite, so the answer cannot be used for training.
    """
    lines = prompts(vlm, rows, features, decoding)
    made = stream.respond(vlm, lines, features, decoding, suppressed=vlm.unsayable, **options)
    failed = {exit for (_, exit), one in zip(rows, made, strict=True) if one.finish_reason == "non-finite"}
    if failed:
        raise finite.failure(vlm, map(vlm.exits.name, sorted(failed)))
    return made
