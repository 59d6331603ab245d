"""Prompts into keys and values: together, padded on the right, and what they begin with alike only once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from layeralign.decode.requests import Prompt, Request
from layeralign.vlm.vlm import Feature, Vlm

_LEAD = 16
"""Tokens before a picture that are worth keeping; what fewer would save is little (docs/speed.md)."""

Ids = Sequence[int]


@dataclass
class Counts:
    """Tokens of prompts that were read, and how many more they would be if nothing were shared."""

    read: int = 0
    shared: int = 0


class Reader:
    """Reads prompts; the text before the picture is kept from the first one on."""

    def __init__(self, vlm: Vlm) -> None:
        self._vlm = vlm
        self._lead: tuple[tuple[int, ...], DynamicCache | None] | None = None
        self.counts = Counts()

    def read(self, requests: Sequence[Request[Any]], *, whole: bool = False) -> tuple[Tensor, DynamicCache]:
        """Prefill requests, all of which share equally many first tokens.

        Args:
            requests: the prompts.
            whole: whether to read each prompt from its first token, even if its beginning was read before.

        Returns:
            The logits of each prompt's first token, [prompts, vocabulary], and the keys and values of each
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
        """What `Vlm.decode_step` is given beside the cache, for rows with these pictures."""
        given = [self._vlm.extra_inputs(feature) for feature in features]
        return {name: torch.cat([one[name] for one in given]) for name in given[0]}

    def _whole(
        self, prompts: Sequence[Prompt[Any]], lines: Sequence[Ids], *, whole: bool = False
    ) -> tuple[Tensor, Tensor, DynamicCache]:
        """What prompts begin with, their picture included: its states, which of them count, the cache."""
        cache, known = (DynamicCache(), 0) if whole else self._begun(lines)
        ids, inside = self._padded([line[known:] for line in lines])
        hidden = self._vlm.hidden(ids, inside, [prompt.feature for prompt in prompts], cache)
        self.counts.shared += known * len(lines)
        return hidden, inside, cache

    def _ends(self, prompts: Sequence[Prompt[Any]], shared: int, cache: DynamicCache) -> Tensor:
        """What comes behind the first `shared` tokens, which are in the cache; the logits behind it."""
        vlm = self._vlm
        ids, inside = self._padded([prompt.ids[shared:] for prompt in prompts])
        starts = torch.tensor(
            [shared + vlm.position_offset(prompt.feature) for prompt in prompts], device=vlm.device
        )
        positions = starts[:, None] + torch.arange(ids.shape[1], device=vlm.device)
        extra_inputs = self.extra_inputs([prompt.feature for prompt in prompts])
        return self._logits_at_end(vlm.decode_step(ids, positions, cache, None, extra_inputs), inside)

    def _begun(self, lines: Sequence[Ids]) -> tuple[DynamicCache, int]:
        """A cache that holds the text before the picture, if all lines begin with it, and its length."""
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
        """The text before the picture, if there is one and it is worth keeping."""
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
        """Lines of ids as int64 [lines, longest], padded on the right, and bool: what is no padding."""
        lengths = [len(line) for line in lines]
        width, device = max(lengths), self._vlm.device
        ids = torch.tensor([[*line, *[self._vlm.pad_token] * (width - len(line))] for line in lines])
        inside = torch.arange(width) < torch.tensor(lengths)[:, None]
        self.counts.read += sum(lengths)
        return ids.to(device), inside.to(device)

    def _logits_at_end(self, hidden: Tensor, inside: Tensor) -> Tensor:
        last = (inside.sum(1) - 1).to(hidden.device)
        return self._vlm.logits(hidden[torch.arange(len(hidden), device=hidden.device), last])
