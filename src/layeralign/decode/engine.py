"""Continuous batching: the decoding engine of scans and training.

Rows, the prompts that are being answered, share one `KVCache`. The engine alternates between two turns:

1. *Prefill*: if enough places are free, queued prompts are read together, generate their first token, and
   become rows. The common prefix of a request's prompts is read once, and its keys are copied to each.
2. *Decode*: every row generates its next token. Rows that end are removed and yielded at once.

No row waits for the slowest one, and memory does not grow with the number of requests. A row's answer does
not depend on the other rows, except for rounding in its logits. A row with non-finite logits ends at once,
with finish reason `non-finite`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from layeralign.decode.cache import KVCache
from layeralign.decode.memory import MemoryBudget
from layeralign.decode.reader import Counts, Reader
from layeralign.decode.requests import Generation, K, Prompt, Queue, Request, Wanted
from layeralign.decode.sampling import NON_FINITE, RowSampler, Sampler, stacked, uniforms
from layeralign.vlm.rope import Regime
from layeralign.vlm.vlm import Vlm

_PADDING = 1 / 16
"""Largest share of padding of a prompt that is read together with longer ones."""
UNSEEN = {"cpu": 1, "cuda": 8}
"""Tokens per decode turn; the host checks for ended rows only between turns, since that stalls a GPU."""


@dataclass
class _Row(Generic[K]):
    """A prompt that is being answered."""

    prompt: Prompt[K]
    wanted: Wanted[K]
    position_offset: int
    sampler: Sampler
    longest: int
    drawn: np.ndarray | None
    tokens: list[int] = field(default_factory=list)


@dataclass
class _State:
    """Inputs of a decode step; rebuilt when rows are added or dropped."""

    last: Tensor  # int64 [rows]
    positions: Tensor  # int64 [rows], position of the last token
    empty: Tensor | None  # int64 [rows, 1], columns before the row's start; None if there are none
    choose: RowSampler
    drawn: Tensor | None  # float64 [rows, longest answer], uniform numbers for sampling
    said: Tensor  # int64 [rows, 1], number of generated tokens
    extra_inputs: dict[str, Tensor]


class Engine(Generic[K]):
    """Answers requests with continuous batching."""

    def __init__(
        self,
        vlm: Vlm,
        choose: Sampler,
        longest: int,
        batch_size: int | None = None,
        goes_on: Callable[[tuple[K, ...], Sequence[int]], bool] | None = None,
    ) -> None:
        """Create an engine.

        Args:
            vlm: A model with `streams` True.
            choose: Sampler of the next token.
            longest: Length limit of an answer, in tokens.
            batch_size: Largest number of rows; by default as many as fit into memory.
            goes_on: Called with the keys and all tokens of a row after each token that does not end it; if it
                returns False the row ends, with the finish reason `length`.
        """
        self._goes_on = goes_on
        self._vlm, self._choose, self._longest, self._ends = vlm, choose, longest, vlm.eos_tokens
        self._budget, self._reader = MemoryBudget(vlm, batch_size), Reader(vlm)
        self._unseen = UNSEEN["cpu" if vlm.device.type == "cpu" else "cuda"]
        self._queue: Queue[K] = Queue()
        self.steps = 0
        self._clear()

    def _clear(self) -> None:
        self._rows: list[_Row[K]] = []
        self._longest_prompt = 0  # of all rows since the batch was last empty
        self._regime: Regime = "short"  # of all rows
        self._cache = KVCache(self._vlm.cross_attention_layers)
        self._state: _State | None = None

    @torch.inference_mode()
    def run(self, requests: Iterable[Request[K]]) -> Iterator[list[Generation[K]]]:
        """Yield the finished generations of each turn; requests are consumed as there is room.

        An iterator that stops may have more later: it is asked again before every turn.

        Raises:
            LayeralignError: There is not enough memory for a single row.
        """
        coming = iter(requests)
        while self._fetch(coming) or self._rows:
            short = False
            try:
                done = self._prefill() if self._has_room() else self._decode()
            except torch.OutOfMemoryError:
                short = True  # the failed turn's memory is freed only after this block
            if short:
                self._halve()
            elif done:
                yield done

    # --- scheduling

    def _fetch(self, coming: Iterator[Request[K]]) -> bool:
        """Fill the queue with enough requests for a prefill; returns whether it has any."""
        while self._queue.tokens < 2 * self._budget.prefill_tokens:
            unit = next(coming, None)
            if unit is None:
                break
            self._queue.append(unit)
        return bool(self._queue)

    def _has_room(self) -> bool:
        """Whether to prefill: there are no rows, or a quarter of all places is free."""
        if not self._queue or not self._rows:
            return not self._rows
        if self._regime == "alone" or self._regime_of(self._queue.first()) != self._regime:
            return False
        places = self._places(self._queue.first().longest)
        return places - len(self._rows) >= min(max(1, places // 4), self._queue.rows)

    def _regime_of(self, unit: Request[K]) -> Regime:
        return self._vlm.regime(unit.longest, self._longest, unit.prompts[0].feature)

    def _places(self, longest: int) -> int:
        """Largest number of rows if the longest new prompt has `longest` tokens."""
        return self._budget.places(self._columns(longest))

    def _columns(self, longest: int) -> int:
        """Largest number of columns of a row if the longest new prompt has `longest` tokens."""
        return max(longest, self._longest_prompt) + self._longest

    def _halve(self) -> None:
        """Requeue all current rows, and continue with half as many."""
        prompts = [Prompt(row.prompt.ids, row.prompt.feature, (row.wanted,)) for row in self._rows]
        self._queue.put_back([Request((prompt,)) for prompt in prompts])
        self._clear()
        self._budget.halve(self._busy)

    @property
    def counts(self) -> Counts:
        """Prompt tokens read and shared so far."""
        return self._reader.counts

    # --- prefill

    def _prefill(self) -> list[Generation[K]]:
        """Read queued prompts; they become rows unless they end with their first token."""
        requests = self._take()
        self._busy = len(self._rows) + sum(unit.rows for unit in requests)
        if not self._rows:
            self._vlm.reset_rope()
        try:
            prompts = [prompt for unit in requests for prompt in unit.prompts]
            logits, cache = self._reader.read(requests, whole=self._regime != "short")
            self._budget.measure(cache)
            return self._begin(prompts, logits, cache)
        except torch.OutOfMemoryError:
            self._queue.put_back(requests)
            raise

    def _take(self) -> list[Request[K]]:
        """Take the next requests from the queue that are similar and fit."""
        first = self._queue.pop()
        self._regime = self._regime_of(first)
        free = 1 if self._regime == "alone" else self._places(first.longest) - len(self._rows)
        if first.shared:  # the shared prefix is copied for each prompt, temporarily twice
            free = min(free, max(1, self._budget.most // 8))
        fits = (self._budget.prefill_tokens - first.shared) // (first.longest - first.shared)
        first, rest = first.split(max(1, min(free, fits)))
        if rest is not None:
            self._queue.put_back([rest])
            return [first]
        taken, rows, tokens = [first], first.rows, first.read
        low = high = first.longest
        while self._queue:
            unit = self._queue.first()
            low, high = min(low, unit.longest), max(high, unit.longest)
            rows, tokens = rows + unit.rows, tokens + unit.read
            alike = unit.shared == first.shared and (first.shared or low >= (1 - _PADDING) * high)
            alike = alike and self._regime_of(unit) == self._regime
            if not alike or rows > free or tokens > self._budget.prefill_tokens:
                break
            taken.append(self._queue.pop())
        return taken

    def _begin(
        self, prompts: Sequence[Prompt[K]], logits: Tensor, cache: DynamicCache
    ) -> list[Generation[K]]:
        """Generate first tokens; rows that have not ended go into the cache."""
        rows = [self._row(prompt, wanted) for prompt in prompts for wanted in prompt.wanted]
        numbers = [number for number, prompt in enumerate(prompts) for _ in prompt.wanted]
        drawn, choose = stacked([row.drawn for row in rows], self._vlm.device), self._sampler(rows)
        tokens = choose(logits[numbers], None if drawn is None else drawn[:, 0]).tolist()
        done, going = [], []
        for number, row, token in zip(numbers, rows, tokens, strict=True):
            row.tokens.append(token)
            if self._ended(row):
                done.append(self._said(row))
            else:
                going.append((number, row))
        if going:
            longest = max(len(prompt.ids) for prompt in prompts)
            lengths = [(number, len(row.prompt.ids)) for number, row in going]
            self._cache.add(cache, lengths, self._columns(longest), self._places(longest))
            self._rows += [row for _, row in going]
            self._longest_prompt = max(longest, self._longest_prompt)
            self._state = None
        return done

    def _row(self, prompt: Prompt[K], wanted: Wanted[K]) -> _Row[K]:
        sampler = wanted.sampler or self._choose
        drawn = None if sampler.greedy else uniforms(wanted.seed, self._longest)
        offset = self._vlm.position_offset(prompt.feature)
        return _Row(prompt, wanted, offset, sampler, wanted.longest or self._longest, drawn)

    def _sampler(self, rows: Sequence[_Row[K]]) -> RowSampler:
        return RowSampler([row.sampler for row in rows], self._vlm.device)

    # --- decode

    def _decode(self) -> list[Generation[K]]:
        """Generate the next tokens of every row; rows that end are dropped."""
        self._busy = len(self._rows)
        state = self._state = self._state or self._look()
        left = min(row.longest - len(row.tokens) for row in self._rows)
        said = [self._step(state) for _ in range(min(self._unseen, left))]
        done = []
        lines = torch.stack(said, dim=1).tolist()
        for number in reversed(range(len(self._rows))):
            row = self._rows[number]
            for token in lines[number]:
                row.tokens.append(token)
                if self._ended(row):
                    done.append(self._said(row))
                    self._leave(number)
                    break
        return done

    def _step(self, state: _State) -> Tensor:
        """Generate one token per row, int64 [rows]."""
        inside = None
        if state.empty is not None:
            columns = torch.arange(self._cache.get_seq_length() + 1, device=state.empty.device)
            inside = columns >= state.empty
        ids, positions = state.last[:, None], state.positions[:, None]
        hidden = self._vlm.decode_step(ids, positions, self._cache, inside, state.extra_inputs)
        self._cache.grew()
        drawn = None if state.drawn is None else state.drawn.gather(1, state.said).squeeze(1)
        chosen = state.choose(self._vlm.logits(hidden[:, -1]), drawn).to(state.last.device)
        state.last = chosen.clamp(min=0)  # a failed row continues until the host checks; any token will do
        state.positions, state.said = state.positions + 1, state.said + 1
        self.steps += 1
        return chosen

    def _look(self) -> _State:
        """Build the state of the current rows."""
        rows, lengths = self._rows, self._cache.lengths
        longest = max(lengths)
        columns = [
            [row.tokens[-1] for row in rows],
            [length + row.position_offset for length, row in zip(lengths, rows, strict=True)],
            [longest - length for length in lengths],
            [len(row.tokens) for row in rows],
        ]
        last, positions, empty, said = torch.tensor(columns).to(self._vlm.device)
        padded = empty[:, None] if min(lengths) < longest else None
        extra_inputs = self._reader.extra_inputs([row.prompt.feature for row in rows])
        drawn = stacked([row.drawn for row in rows], self._vlm.device)
        return _State(last, positions, padded, self._sampler(rows), drawn, said[:, None], extra_inputs)

    def _ended(self, row: _Row[K]) -> bool:
        last = row.tokens[-1]
        if last in self._ends or last == NON_FINITE or len(row.tokens) == row.longest:
            return True
        return self._goes_on is not None and not self._goes_on(row.wanted.keys, row.tokens)

    def _said(self, row: _Row[K]) -> Generation[K]:
        if row.tokens[-1] == NON_FINITE:
            return Generation(row.wanted.keys, row.tokens[:-1], "non-finite")
        return Generation(row.wanted.keys, row.tokens, "stop" if row.tokens[-1] in self._ends else "length")

    def _leave(self, number: int) -> None:
        """Drop a row; the last row takes its place, as in the cache."""
        self._cache.drop(number)
        self._rows[number] = self._rows[-1]
        self._rows.pop()
        self._longest_prompt *= bool(self._rows)
        self._state = None
