"""Prompts in, answers out, as fast as the machine allows: what scan and training decode with.

Rows - prompts that are being answered - live together in one cache, `KVCache`. A turn is one of two:

1. *prefill*: where enough places are free, prompts that wait are read together, say their first token, and
   become rows. What the prompts of a unit begin with is read once, and its keys are given to each.
2. *decode*: every row says its next token. Those that end leave, and are handed out at once.

So no row waits for the slowest, and memory does not grow with what is asked. What a row says does not depend
on the rows beside it, but for the last bits of its logits. A row whose logits are not finite numbers ends
at once, with that as its reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
from layeralign.decode.sampling import NON_FINITE, Sampler, uniforms
from layeralign.vlm.rope import Regime
from layeralign.vlm.vlm import Vlm

_PADDING = 1 / 16
"""Prompts are read together if the shortest lacks no larger part of the longest than this."""
UNSEEN = {"cpu": 1, "cuda": 8}
"""Tokens that are said before the host looks whether rows have ended: looking makes a GPU wait."""


@dataclass
class _Row(Generic[K]):
    """A prompt that is being answered."""

    prompt: Prompt[K]
    wanted: Wanted[K]
    position_offset: int
    drawn: np.ndarray | None
    tokens: list[int] = field(default_factory=list)


@dataclass
class _State:
    """What a decoding step reads of each row; made anew when rows come or go."""

    last: Tensor  # int64 [rows]
    positions: Tensor  # int64 [rows], of the last token
    empty: Tensor | None  # int64 [rows, 1], columns before a row begins; None where there are none
    drawn: Tensor | None  # float64 [rows, longest answer]
    said: Tensor  # int64 [rows, 1], tokens
    extra_inputs: dict[str, Tensor]


class Engine(Generic[K]):
    """Answers units of prompts."""

    def __init__(self, vlm: Vlm, choose: Sampler, longest: int, batch_size: int | None = None) -> None:
        """An engine.

        Args:
            vlm: a model that streams.
            choose: the next token.
            longest: tokens of the longest answer.
            batch_size: most rows beside each other; by default what memory allows.
        """
        self._vlm, self._choose, self._longest, self._ends = vlm, choose, longest, vlm.eos_tokens
        self._budget, self._reader = MemoryBudget(vlm, batch_size), Reader(vlm)
        self._unseen = UNSEEN["cpu" if vlm.device.type == "cpu" else "cuda"]
        self._queue: Queue[K] = Queue()
        self.steps = 0
        self._clear()

    def _clear(self) -> None:
        self._rows: list[_Row[K]] = []
        self._longest_prompt = 0  # since there last were no rows
        self._regime: Regime = "short"  # of all rows
        self._cache = KVCache(self._vlm.cross_attention_layers)
        self._state: _State | None = None

    @torch.inference_mode()
    def run(self, requests: Iterable[Request[K]]) -> Iterator[list[Generation[K]]]:
        """Every answer that is wanted, turn by turn; units are taken when there is room for them.

        Raises:
            LayeralignError: memory does not suffice for one row.
        """
        coming = iter(requests)
        while self._fetch(coming) or self._rows:
            short = False
            try:
                done = self._prefill() if self._has_room() else self._decode()
            except torch.OutOfMemoryError:
                short = True  # what the failed turn held is let go only past this block
            if short:
                self._halve()
            elif done:
                yield done

    # --- which turn it is

    def _fetch(self, coming: Iterator[Request[K]]) -> bool:
        """See that enough waits for a prefill, and no more; whether anything does."""
        while self._queue.tokens < 2 * self._budget.prefill_tokens:
            unit = next(coming, None)
            if unit is None:
                break
            self._queue.append(unit)
        return bool(self._queue)

    def _has_room(self) -> bool:
        """Whether it is a prefill's turn: nothing else is to do, or a quarter of all places is free."""
        if not self._queue or not self._rows:
            return not self._rows
        if self._regime == "alone" or self._regime_of(self._queue.first()) != self._regime:
            return False
        places = self._places(self._queue.first().longest)
        return places - len(self._rows) >= min(max(1, places // 4), self._queue.rows)

    def _regime_of(self, unit: Request[K]) -> Regime:
        return self._vlm.regime(unit.longest, self._longest, unit.prompts[0].feature)

    def _places(self, longest: int) -> int:
        """Rows that can be beside each other, where a prompt of so many tokens is among them."""
        return self._budget.places(self._columns(longest))

    def _columns(self, longest: int) -> int:
        """Columns that a row can come to use, where a prompt of so many tokens is among them."""
        return max(longest, self._longest_prompt) + self._longest

    def _halve(self) -> None:
        """Forget what is under way, and go on with half as many rows; nothing of it was handed out."""
        prompts = [Prompt(row.prompt.ids, row.prompt.feature, (row.wanted,)) for row in self._rows]
        self._queue.put_back([Request((prompt,)) for prompt in prompts])
        self._clear()
        self._budget.halve(self._busy)

    @property
    def counts(self) -> Counts:
        """Tokens of prompts so far."""
        return self._reader.counts

    # --- prefill

    def _prefill(self) -> list[Generation[K]]:
        """Read prompts that wait; they become rows, those that have ended aside."""
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
        """The next units that wait, as long as they are alike and there is room for them."""
        first = self._queue.pop()
        self._regime = self._regime_of(first)
        free = 1 if self._regime == "alone" else self._places(first.longest) - len(self._rows)
        if first.shared:  # what they share is copied for each of them, twice for a moment
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
        """The first tokens; rows that have more to say go into the cache."""
        rows = [self._row(prompt, wanted) for prompt in prompts for wanted in prompt.wanted]
        numbers = [number for number, prompt in enumerate(prompts) for _ in prompt.wanted]
        drawn = self._drawn(rows)
        tokens = self._choose(logits[numbers], None if drawn is None else drawn[:, 0]).tolist()
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
        drawn = None if self._choose.greedy else uniforms(wanted.seed, self._longest)
        return _Row(prompt, wanted, self._vlm.position_offset(prompt.feature), drawn)

    # --- decode

    def _decode(self) -> list[Generation[K]]:
        """Every row says its next token, or its next few; those that end leave."""
        self._busy = len(self._rows)
        state = self._state = self._state or self._look()
        left = self._longest - max(len(row.tokens) for row in self._rows)
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
        """One token of every row, int64 [rows]."""
        inside = None
        if state.empty is not None:
            columns = torch.arange(self._cache.get_seq_length() + 1, device=state.empty.device)
            inside = columns >= state.empty
        ids, positions = state.last[:, None], state.positions[:, None]
        hidden = self._vlm.decode_step(ids, positions, self._cache, inside, state.extra_inputs)
        self._cache.grew()
        drawn = None if state.drawn is None else state.drawn.gather(1, state.said).squeeze(1)
        chosen = self._choose(self._vlm.logits(hidden[:, -1]), drawn).to(state.last.device)
        state.last = chosen.clamp(min=0)  # a row that failed goes on until the host looks; any token will do
        state.positions, state.said = state.positions + 1, state.said + 1
        self.steps += 1
        return chosen

    def _look(self) -> _State:
        """The rows as they are."""
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
        return _State(last, positions, padded, self._drawn(rows), said[:, None], extra_inputs)

    def _drawn(self, rows: Sequence[_Row[K]]) -> Tensor | None:
        """The rows' draws, float64 [rows, longest answer]."""
        drawn = [row.drawn for row in rows if row.drawn is not None]
        return torch.from_numpy(np.stack(drawn)).to(self._vlm.device) if drawn else None

    def _ended(self, row: _Row[K]) -> bool:
        last = row.tokens[-1]
        return last in self._ends or last == NON_FINITE or len(row.tokens) == self._longest

    def _said(self, row: _Row[K]) -> Generation[K]:
        if row.tokens[-1] == NON_FINITE:
            return Generation(row.wanted.keys, row.tokens[:-1], "non-finite")
        return Generation(row.wanted.keys, row.tokens, "stop" if row.tokens[-1] in self._ends else "length")

    def _leave(self, number: int) -> None:
        """A row goes; the last one takes its place, here as in the cache."""
        self._cache.drop(number)
        self._rows[number] = self._rows[-1]
        self._rows.pop()
        self._longest_prompt *= bool(self._rows)
        self._state = None
