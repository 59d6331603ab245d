"""Probability that an answer starts with given tokens, from one prefill of its prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from layeralign.cases.case import Case
from layeralign.decode.decoding import PLAIN, Decoding
from layeralign.decode.prompts import encode, prompt_tokens
from layeralign.errors import LayeralignError
from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm

Opening = tuple[int, ...]
"""The first tokens of an answer."""


def opens(
    vlm: Vlm, pairs: Sequence[tuple[Case, int]], openings: Sequence[Opening], decoding: Decoding = PLAIN
) -> list[float]:
    """Probability at temperature 1 that each answer starts with one of `openings`.

    Every prompt is read once; the openings are read after it in one batch.

    Args:
        vlm: The model.
        pairs: Cases and exits, read together.
        openings: Token ids of the openings; none is a prefix of another.
        decoding: Settings of the prompts.

    Returns:
        One probability per pair, 0 to 1; NaN if the logits are not finite.

    Raises:
        LayeralignError: A prompt is so long that its logits depend on other rows (`Vlm.regime`).
    """
    features = encode(vlm, pairs)
    ids = [prompt_tokens(vlm, case, f, decoding) for (case, _), f in zip(pairs, features, strict=True)]
    longest = max(map(len, openings))
    for line, feature in zip(ids, features, strict=True):
        if vlm.regime(len(line), longest, feature) != "short":
            raise LayeralignError(
                f"screen: the rotary embeddings of model {vlm.checkpoint.name} depend on the longest row "
                f"({len(line)} tokens here), so prompts cannot share a batch; scan it without --screen"
            )
    vlm.reset_rope()
    found = [0.0] * len(pairs)
    alike: dict[int, list[int]] = {}
    for number, line in enumerate(ids):
        alike.setdefault(len(line), []).append(number)
    for numbers in alike.values():
        prompts = torch.tensor([ids[number] for number in numbers], device=vlm.device)
        chances = _chances(vlm, prompts, [features[number] for number in numbers], openings)
        for number, chance in zip(numbers, chances.sum(1).tolist(), strict=True):
            found[number] = chance if math.isnan(chance) else min(1.0, chance)
    return found


@torch.inference_mode()
def _chances(
    vlm: Vlm, prompts: Tensor, features: Sequence[Feature | None], openings: Sequence[Opening]
) -> Tensor:
    """Probability of each opening after each prompt of equal length, float64 [prompts, openings]."""
    rows, width = prompts.shape
    many = len(openings)
    longest = max(map(len, openings))
    lines = torch.full((many, longest), vlm.pad_token, device=vlm.device)
    for number, opening in enumerate(openings):
        lines[number, : len(opening)] = torch.tensor(opening)
    inside = torch.arange(longest) < torch.tensor([len(opening) for opening in openings])[:, None]
    if vlm.streams:
        cache = DynamicCache()
        hidden = vlm.hidden(prompts, torch.ones_like(prompts, dtype=torch.bool), features, cache)[:, -1:]
        hidden = hidden.repeat_interleave(many, 0)
        if longest > 1:
            hidden = torch.cat([hidden, _behind(vlm, cache, width, features, lines)], 1)
    else:
        whole = torch.cat([prompts.repeat_interleave(many, 0), lines.repeat(rows, 1)], 1)
        asked = (torch.arange(whole.shape[1], device=vlm.device) < width).expand_as(whole)
        again = [feature for feature in features for _ in openings]
        hidden = vlm.hidden(whole, asked, again)[:, width - 1 : -1]
    logits = vlm.logits(hidden).double()
    finite = logits.amax(-1, keepdim=True).isfinite()
    each = logits.log_softmax(-1).gather(-1, lines.repeat(rows, 1)[..., None]).where(finite, torch.nan)
    chosen = each.squeeze(-1).view(rows, many, longest).where(inside.to(each.device), 0.0)
    return chosen.sum(-1).exp()


def _behind(
    vlm: Vlm, cache: DynamicCache, width: int, features: Sequence[Feature | None], lines: Tensor
) -> Tensor:
    """Hidden states of all but the last token of each opening, after each prompt in the cache."""
    many, longest = lines.shape
    cache.batch_select_indices(torch.arange(len(features), device=vlm.device).repeat_interleave(many))
    again = [feature for feature in features for _ in range(many)]
    starts = torch.tensor([width + vlm.position_offset(feature) for feature in again], device=vlm.device)
    positions = starts[:, None] + torch.arange(longest - 1, device=vlm.device)
    given = [vlm.extra_inputs(feature) for feature in again]
    extra_inputs = {name: torch.cat([one[name] for one in given]) for name in given[0]}
    return vlm.decode_step(lines.repeat(len(features), 1)[:, :-1], positions, cache, None, extra_inputs)
