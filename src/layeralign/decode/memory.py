"""Memory budget of the engine."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache

from layeralign._util import machine
from layeralign.errors import LayeralignError
from layeralign.vlm.vlm import Vlm

MOST_ROWS = {"cpu": 128, "cuda": 512}
"""Default number of rows per batch; more rows gain little and end later (docs/speed.md)."""
PREFILL_TOKENS = {"cpu": 768, "cuda": 8192}
"""Prompt tokens per prefill: as many as fit a CPU's caches, or keep a GPU busy."""
_SHARE = 0.8
"""Share of free memory for the KV cache; the rest is for the encoder and prefills."""


class MemoryBudget:
    """Largest number of rows per batch and of prompt tokens per prefill.

    Attributes:
        most: Largest number of rows, however short they are.
        prefill_tokens: Prompt tokens per prefill; see `PREFILL_TOKENS`.
    """

    def __init__(self, vlm: Vlm, batch_size: int | None) -> None:
        self._vlm = vlm
        kind = "cpu" if vlm.device.type == "cpu" else "cuda"
        self.most = batch_size or MOST_ROWS[kind]
        self.prefill_tokens = PREFILL_TOKENS[kind]
        self._bytes = self._row_bytes = self._column_bytes = 0

    def places(self, columns: int) -> int:
        """Largest number of rows, at least 1, if no row is longer than `columns` tokens."""
        if not self._column_bytes:
            return self.most
        return max(1, min(self.most, self._bytes // (self._row_bytes + columns * self._column_bytes)))

    def measure(self, cache: Cache) -> None:
        """Measure the size of keys and values on the first prompts, and the free memory."""
        if self._column_bytes:
            return
        layers: list[Any] = cache.layers
        for index, layer in enumerate(layers):
            if not layer.is_initialized:  # mllama's cross-attention if no prompt has a picture
                continue
            of_row = (layer.keys.nbytes + layer.values.nbytes) // len(layer.keys)
            if index in self._vlm.cross_attention_layers:
                self._row_bytes += of_row
            else:
                self._column_bytes += of_row // layer.keys.shape[2]
        self._bytes = int(_SHARE * machine.free_memory(self._vlm.device))

    def halve(self, rows: int) -> None:
        """Halve the budget after an out-of-memory error with `rows` rows.

        Raises:
            LayeralignError: `rows` is 1.
        """
        if rows == 1:
            raise too_little(self._vlm)
        self.most = rows // 2
        self.prefill_tokens = max(1, self.prefill_tokens // 2)
        if self._vlm.device.type == "cuda":
            torch.cuda.empty_cache()


def too_little(vlm: Vlm) -> LayeralignError:
    """The error for a single row that does not fit into memory."""
    return LayeralignError(
        f"model {vlm.checkpoint.name}: there is not enough memory for a single answer; use a smaller dtype, "
        "or lower max_new_tokens"
    )
