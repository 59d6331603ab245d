"""Decoding with transformers' `generate`, for models that the engine does not support."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile
from typing import Any, Generic

import torch
from torch import Tensor
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList

from layeralign.decode.memory import MemoryBudget
from layeralign.decode.requests import Generation, K, Prompt, Request, Wanted
from layeralign.decode.sampling import NON_FINITE, RowSampler, Sampler, stacked, uniforms
from layeralign.vlm.vlm import Vlm

_ROWS = 32
"""Default number of rows per batch."""


class _Chosen(LogitsProcessor):
    """Forces `generate` to use the tokens of our sampler.

    Attributes:
        chosen: The tokens of each step, int64 [rows]; `NON_FINITE` for rows with non-finite logits, for which
            `generate` gets token 0.
    """

    def __init__(self, choose: RowSampler, drawn: Tensor | None) -> None:
        self._choose, self._drawn = choose, drawn
        self.chosen: list[Tensor] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        drawn = None if self._drawn is None else self._drawn[:, len(self.chosen)]
        self.chosen.append(self._choose(scores, drawn))
        token = self.chosen[-1].clamp(min=0)[:, None]
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)


class Plain(Generic[K]):
    """Answers requests in batches, each of which waits for its slowest row; see `Engine`."""

    def __init__(self, vlm: Vlm, choose: Sampler, longest: int, batch_size: int | None = None) -> None:
        self._vlm, self._choose, self._longest = vlm, choose, longest
        self._budget = MemoryBudget(vlm, batch_size or _ROWS)

    @torch.inference_mode()
    def run(self, requests: Iterable[Request[K]]) -> Iterator[list[Generation[K]]]:
        """See `Engine.run`."""
        rows = ((p, wanted) for unit in requests for p in unit.prompts for wanted in p.wanted)
        while batch := list(islice(rows, self._budget.most)):
            while batch:
                now = self._extra_inputs(batch[: self._budget.most])
                short, done = False, []
                try:
                    done = self._answers(now)
                except torch.OutOfMemoryError:
                    short = True  # the failed batch's memory is freed only after this block
                if short:
                    self._budget.halve(len(now))
                else:
                    batch = batch[len(now) :]
                    yield done

    def _extra_inputs(self, rows: list[tuple[Prompt[K], Wanted[K]]]) -> list[tuple[Prompt[K], Wanted[K]]]:
        """The first rows that can share a batch."""
        regimes = [self._vlm.regime(len(prompt.ids), self._longest, prompt.feature) for prompt, _ in rows]
        if regimes[0] == "alone" or self._vlm.answers_alone:
            return rows[:1]
        return [
            row for row, _ in takewhile(lambda one: one[1] == regimes[0], zip(rows, regimes, strict=True))
        ]

    def _answers(self, rows: Sequence[tuple[Prompt[K], Wanted[K]]]) -> list[Generation[K]]:
        vlm = self._vlm
        vlm.reset_rope()
        samplers = [wanted.sampler or self._choose for _, wanted in rows]
        longest = max(wanted.longest or self._longest for _, wanted in rows)
        drawn = [
            None if sampler.greedy else uniforms(wanted.seed, longest)
            for sampler, (_, wanted) in zip(samplers, rows, strict=True)
        ]
        processor = _Chosen(RowSampler(samplers, vlm.device), stacked(drawn, vlm.device))
        vlm.generate(
            [prompt.ids for prompt, _ in rows], [prompt.feature for prompt, _ in rows],
            max_new_tokens=longest, do_sample=False, logits_processor=LogitsProcessorList([processor]),
        )  # fmt: skip
        lines = torch.stack(processor.chosen, 1).tolist()
        return [self._said(wanted, line) for (_, wanted), line in zip(rows, lines, strict=True)]

    def _said(self, wanted: Wanted[K], line: list[int]) -> Generation[K]:
        """A row's generation, cut at its end, from the tokens of all steps of the batch."""
        line = line[: wanted.longest]
        for length, token in enumerate(line, 1):
            if token == NON_FINITE:
                return Generation(wanted.keys, line[: length - 1], "non-finite")
            if token in self._vlm.eos_tokens:
                return Generation(wanted.keys, line[:length], "stop")
        return Generation(wanted.keys, line, "length")
