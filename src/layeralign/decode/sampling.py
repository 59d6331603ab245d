"""From logits to the next token of each row; a row's draws are its own, whatever batch it is in."""

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
    """A row's n numbers, each at least 0 and below 1, one for each token that it may say; float64."""
    return np.random.Generator(np.random.Philox(seed)).random(n)


NON_FINITE = -1
"""What is chosen for a row whose logits hold NaN or infinity: no token. Its argmax would be one like any
other."""


class Sampler:
    """Greedy, or sampled: the token at which the cumulated probabilities pass the row's draw.

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
            drawn: float64 [rows]; None where it is greedy.

        Returns:
            int64 [rows]; `NON_FINITE` where one of a row's logits is NaN or infinite.
        """
        none: Any = None  # what was said before makes no difference to these
        scores = logits.float()
        finite = scores.amax(-1).isfinite()  # lets NaN through; -inf alone says that a token cannot come
        scores = self._warped(none, scores)
        if drawn is None:
            return scores.argmax(dim=-1).where(finite, NON_FINITE)
        passed = scores.softmax(-1).double().cumsum(-1)
        at = torch.searchsorted(passed, (drawn * passed[:, -1])[:, None], right=True)
        return at.squeeze(1).clamp(max=scores.shape[-1] - 1).where(finite, NON_FINITE)
