"""Prefill: prompts are read in batches, padded on the right, and common prefixes are read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from layeralign.decode.requests import Prompt, Request
from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm

_LEAD = 16
"""Least tokens before a picture that are worth caching; fewer would save little (docs/speed.md)."""

Ids = Sequence[int]


@dataclass
class Counts:
    """Prompt tokens that were read, and prompt tokens that sharing saved."""

    read: int = 0
    shared: int = 0


class Reader:
    """Reads prompts; the text before the picture is cached from the first prompt on."""

    def __init__(self, vlm: Vlm) -> None:
        self._vlm = vlm
        self._lead: tuple[tuple[int, ...], DynamicCache | None] | None = None
        self.counts = Counts()

    def read(self, requests: Sequence[Request[Any]], *, whole: bool = False) -> tuple[Tensor, DynamicCache]:
        """Prefill requests that have the same number of shared tokens.

        Args:
            requests: The requests.
            whole: Whether to read each prompt from its first token, even if a prefix is cached.

        Returns:
            The logits of each answer's first token, [prompts, vocabulary], and the keys and values of each
            prompt's tokens, from column 0 on.
        """
        prompts = [prompt for unit in requests for prompt in unit.prompts]
        shared = requests[0].shared
        if not shared:
            hidden, inside, cache = self._whole(prompts, [prompt.ids for prompt in prompts], whole=whole)
            return self._logits_at_end(hidden, inside), cache
        firsts = [unit.prompts[0] for unit in requests]
        _, _, cache = self._whole(firsts, [prompt.ids[:shared] for prompt in firsts])
        of = [number for number, unit in enumerate(requests) for _ in unit.prompts]
        cache.batch_select_indices(torch.tensor(of, device=self._vlm.device))
        self.counts.shared += (len(prompts) - len(requests)) * shared
        return self._ends(prompts, shared, cache), cache

    def extra_inputs(self, features: Sequence[Feature | None]) -> dict[str, Tensor]:
        """Extra inputs of `Vlm.decode_step` for rows with these pictures."""
        given = [self._vlm.extra_inputs(feature) for feature in features]
        return {name: torch.cat([one[name] for one in given]) for name in given[0]}

    def _whole(
        self, prompts: Sequence[Prompt[Any]], lines: Sequence[Ids], *, whole: bool = False
    ) -> tuple[Tensor, Tensor, DynamicCache]:
        """Read the lines, with their pictures: hidden states, mask of tokens that are not padding, cache."""
        cache, known = (DynamicCache(), 0) if whole else self._begun(lines)
        ids, inside = self._padded([line[known:] for line in lines])
        hidden = self._vlm.hidden(ids, inside, [prompt.feature for prompt in prompts], cache)
        self.counts.shared += known * len(lines)
        return hidden, inside, cache

    def _ends(self, prompts: Sequence[Prompt[Any]], shared: int, cache: DynamicCache) -> Tensor:
        """Read the tokens after the first `shared`, which are in the cache; returns the last logits."""
        vlm = self._vlm
        ids, inside = self._padded([prompt.ids[shared:] for prompt in prompts])
        starts = torch.tensor(
            [shared + vlm.position_offset(prompt.feature) for prompt in prompts], device=vlm.device
        )
        positions = starts[:, None] + torch.arange(ids.shape[1], device=vlm.device)
        extra_inputs = self.extra_inputs([prompt.feature for prompt in prompts])
        return self._logits_at_end(vlm.decode_step(ids, positions, cache, None, extra_inputs), inside)

    def _begun(self, lines: Sequence[Ids]) -> tuple[DynamicCache, int]:
        """A cache with the text before the picture, if all lines start with it, and that text's length."""
        cache = DynamicCache()
        ids, lead = self._lead or self._read_lead(lines[0])
        if lead is None or any(len(line) <= len(ids) or tuple(line[: len(ids)]) != ids for line in lines):
            return cache, 0
        layers: list[Any] = lead.layers
        for index, layer in enumerate(layers):
            keys, values = (t.expand(len(lines), -1, -1, -1) for t in (layer.keys, layer.values))
            cache.update(keys, values, index)
        return cache, len(ids)

    def _read_lead(self, line: Ids) -> tuple[tuple[int, ...], DynamicCache | None]:
        """Read the text before the picture, if there is one and it is worth caching."""
        picture = self._vlm.picture_token_id
        if not self._vlm.lead_alone or picture not in line:
            return (), None
        ids = tuple(line[: line.index(picture)])
        cache = DynamicCache() if len(ids) >= _LEAD else None
        if cache is not None:
            self._vlm.hidden(*self._padded([ids]), [None], cache)
        self._lead = ids, cache
        return self._lead

    def _padded(self, lines: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        """Right-padded ids, int64 [lines, longest], and the mask of tokens that are not padding, bool."""
        lengths = [len(line) for line in lines]
        width, device = max(lengths), self._vlm.device
        ids = torch.tensor([[*line, *[self._vlm.pad_token] * (width - len(line))] for line in lines])
        inside = torch.arange(width) < torch.tensor(lengths)[:, None]
        self.counts.read += sum(lengths)
        return ids.to(device), inside.to(device)

    def _logits_at_end(self, hidden: Tensor, inside: Tensor) -> Tensor:
        last = (inside.sum(1) - 1).to(hidden.device)
        return self._vlm.logits(hidden[torch.arange(len(hidden), device=hidden.device), last])
