"""The same answers through transformers' `generate`, for a model of which only that is known to work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic

import numpy as np
import torch
from torch import Tensor
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList

from layeralign.decode.memory import Room
from layeralign.decode.sampling import Chooser, draws
from layeralign.decode.units import K, Prompt, Said, Unit, Wanted
from layeralign.vlm.vlm import Vlm

_ROWS = 32
"""Rows of a batch, where nothing else is said."""


class _Chosen(LogitsProcessor):
    """Leaves `generate` no choice but ours."""

    def __init__(self, choose: Chooser, drawn: Tensor | None) -> None:
        self._choose, self._drawn, self._said = choose, drawn, 0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        drawn = None if self._drawn is None else self._drawn[:, self._said]
        token = self._choose(scores, drawn)[:, None]
        self._said += 1
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)


class Plain(Generic[K]):
    """Answers units of prompts in batches, each of which waits for its slowest row; see `Engine`."""

    def __init__(self, vlm: Vlm, choose: Chooser, longest: int, batch_size: int | None = None) -> None:
        self._vlm, self._choose, self._longest = vlm, choose, longest
        self._room = Room(vlm, batch_size or _ROWS)

    @torch.inference_mode()
    def run(self, units: Iterable[Unit[K]]) -> Iterator[list[Said[K]]]:
        """See `Engine.run`."""
        rows = ((p, wanted) for unit in units for p in unit.prompts for wanted in p.wanted)
        while batch := list(islice(rows, self._room.most)):
            while batch:
                now = batch[: self._room.most]
                short, done = False, []
                try:
                    done = self._answers(now)
                except torch.OutOfMemoryError:
                    short = True  # what the failed batch held is let go only past this block
                if short:
                    self._room.halve(len(now))
                else:
                    batch = batch[len(now) :]
                    yield done

    def _answers(self, rows: Sequence[tuple[Prompt[K], Wanted[K]]]) -> list[Said[K]]:
        vlm, drawn = self._vlm, None
        if not self._choose.greedy:
            drawn = torch.from_numpy(np.stack([draws(wanted.seed, self._longest) for _, wanted in rows]))
            drawn = drawn.to(vlm.device)
        made = vlm.generate(
            [prompt.ids for prompt, _ in rows], [prompt.feature for prompt, _ in rows],
            max_new_tokens=self._longest, do_sample=False,
            logits_processor=LogitsProcessorList([_Chosen(self._choose, drawn)]),
        )  # fmt: skip
        found = []
        for (_, wanted), line in zip(rows, made.tolist(), strict=True):
            ends = [at for at, token in enumerate(line, 1) if token in vlm.eos_tokens]
            found.append(Said(wanted.keys, line[: ends[0]] if ends else line, bool(ends)))
        return found
