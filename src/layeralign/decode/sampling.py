"""Sampling of the next tokens; a row's random numbers do not depend on its batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessor,
    LogitsProcessorList,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from layeralign.decode.decoding import Decoding


def seed_of(*parts: object) -> int:
    """A seed that depends on every part, 0 to 2^63 - 1."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8]) >> 1


def uniforms(seed: int, n: int) -> np.ndarray:
    """A row's `n` random numbers, one per token, in [0, 1), float64."""
    return np.random.Generator(np.random.Philox(seed)).random(n)


NON_FINITE = -1
"""The "token" of a row with NaN or infinite logits, whose argmax would look like an ordinary token."""


class Sampler:
    """Chooses tokens greedily, or samples them by inverting the cumulative distribution.

    Temperature and top-p are transformers' own.
    """

    def __init__(self, decoding: Decoding, device: torch.device, suppressed: Sequence[int] = ()) -> None:
        self.greedy = decoding.temperature == 0
        warpers: list[LogitsProcessor] = []
        if suppressed:
            warpers.append(SuppressTokensLogitsProcessor(list(suppressed), device=str(device)))
        if not self.greedy:
            warpers.append(TemperatureLogitsWarper(float(decoding.temperature)))
        if not self.greedy and decoding.top_p < 1:
            warpers.append(TopPLogitsWarper(decoding.top_p))
        self._warped = LogitsProcessorList(warpers)

    def __call__(self, logits: Tensor, drawn: Tensor | None) -> Tensor:
        """The next token of each row.

        Args:
            logits: [rows, vocabulary].
            drawn: Random numbers, float64 [rows]; None for greedy decoding.

        Returns:
            int64 [rows]; `NON_FINITE` if a row's largest logit is NaN or infinite.
        """
        none: Any = None  # earlier tokens do not affect these processors
        scores = logits.float()
        finite = scores.amax(-1).isfinite()  # propagates NaN; -inf only marks a suppressed token
        scores = self._warped(none, scores)
        if drawn is None:
            return scores.argmax(dim=-1).where(finite, NON_FINITE)
        passed = scores.softmax(-1).double().cumsum(-1)
        at = torch.searchsorted(passed, (drawn * passed[:, -1])[:, None], right=True)
        return at.squeeze(1).clamp(max=scores.shape[-1] - 1).where(finite, NON_FINITE)


class RowSampler:
    """Chooses tokens for rows that may have different samplers."""

    def __init__(self, samplers: Sequence[Sampler], device: torch.device) -> None:
        rows: dict[Sampler, list[int]] = {}
        for row, sampler in enumerate(samplers):
            rows.setdefault(sampler, []).append(row)
        self._rows = {sampler: torch.tensor(each, device=device) for sampler, each in rows.items()}

    def __call__(self, logits: Tensor, drawn: Tensor | None) -> Tensor:
        """The next token of each row; `drawn` is needed if any sampler is not greedy. See `Sampler`."""
        if len(self._rows) == 1:
            (sampler,) = self._rows
            return sampler(logits, drawn)
        found = torch.empty(len(logits), dtype=torch.long, device=logits.device)
        for sampler, rows in self._rows.items():
            found[rows] = sampler(logits[rows], None if drawn is None or sampler.greedy else drawn[rows])
        return found


def stacked(rows: Sequence[np.ndarray | None], device: torch.device) -> Tensor | None:
    """Random numbers of rows, float64 [rows, tokens], with zeros for rows without; None if no row has any."""
    if not (drawn := [row for row in rows if row is not None]):
        return None
    none = np.zeros_like(drawn[0])
    return torch.from_numpy(np.stack([none if row is None else row for row in rows])).to(device)
