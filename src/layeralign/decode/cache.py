"""The keys and values of rows that come and go: preallocated, and never copied to add a token.

All rows end at the same column, whatever their length, as with padding on the left: the next token of every
row goes into the next column, and transformers' own masks are right as they are. A row that leaves gives its
place to the last one; one that comes is written so that it ends where the others do.

The columns before a row begins are masked, but attention still multiplies them by a weight of 0, and 0 ×
NaN is NaN. So they are kept at zero: what an earlier row left there, perhaps NaN, would reach this one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

_SPARE = 32
"""Columns to grow into before all rows move to the left, which costs what one token's attention costs."""


class KVCache(Cache):
    """Keys and values of some rows, as transformers' forward takes them.

    Attributes:
        lengths: tokens of each row.
        end: the column at which all of them end.
    """

    def __init__(self, cross_attention_layers: frozenset[int] = frozenset()) -> None:
        super().__init__(layers=[])
        self._cross_attention = cross_attention_layers
        self._kv: list[tuple[Tensor, Tensor] | None] = []  # per layer, [places, heads, columns, width]
        self.lengths: list[int] = []
        self._places = self._columns = self.end = 0

    @property
    def begin(self) -> int:
        """The first column that some row uses."""
        return self.end - max(self.lengths, default=0)

    # --- rows come and go

    def add(self, made: Cache, rows: Sequence[tuple[int, int]], columns: int, places: int) -> None:
        """Take over rows of another cache.

        Args:
            made: their keys and values, from column 0 on.
            rows: of each its number in `made` (which may come several times) and its tokens.
            columns: how long a row can get.
            places: how many rows there can be.
        """
        if not self._kv:
            self._kv = [None] * len(made.layers)
            self.layers = [DynamicLayer() for _ in made.layers]
        self._make_room(len(rows), max(length for _, length in rows), columns, places)
        place = len(self.lengths)
        for length, run in groupby(rows, key=lambda row: row[1]):
            sources = [number for number, _ in run]
            for index, layer in enumerate(made.layers):
                self._write(index, layer, sources, place, length)
            place += len(sources)
        self.lengths += [length for _, length in rows]
        self._show_cross_attention()

    def _write(self, index: int, layer: Any, sources: list[int], place: int, length: int) -> None:
        """Put rows of one layer, all of one length, into the places from `place` on."""
        new = (layer.keys, layer.values) if layer.is_initialized else None
        crossing = index in self._cross_attention
        if new is not None and self._kv[index] is None:
            keys, values = (
                t.new_zeros(self._places, t.shape[1], t.shape[2] if crossing else self._columns, t.shape[3])
                for t in new
            )
            self._kv[index] = keys, values
        for number, whole in enumerate(self._kv[index] or ()):
            there = whole[place : place + len(sources)]
            if new is None:  # rows without a picture, where others have one
                there.zero_()
            elif crossing:
                there.copy_(new[number][sources])
            else:
                there[:, :, : self.end - length] = 0
                there[:, :, self.end - length : self.end] = new[number][sources, :, :length]

    def drop(self, row: int) -> None:
        """Forget a row; the last one takes its place."""
        last = len(self.lengths) - 1
        if row != last:
            for whole in self._until_end():
                whole[row] = whole[last]
            self.lengths[row] = self.lengths[last]
        self.lengths.pop()
        self._show_cross_attention()

    def grew(self) -> None:
        """Every row has been given a token."""
        self.lengths = [length + 1 for length in self.lengths]
        self.end += 1
        if self.end == self._columns:
            self._move(max(self.lengths))

    # --- room

    def _until_end(self) -> Iterator[Tensor]:
        """Every layer's keys and values up to where the rows end, the zeros before them included."""
        for index, kv in enumerate(self._kv):
            columns = slice(None) if index in self._cross_attention else slice(self.end)
            for whole in kv or ():
                yield whole[: len(self.lengths), :, columns]

    def _make_room(self, more: int, longest: int, columns: int, places: int) -> None:
        rows = len(self.lengths)
        longest = max(longest, *self.lengths, 0)
        if rows + more > self._places or columns + _SPARE > self._columns:
            places = max(rows + more, min(places, 2 * self._places), self._places)
            self._allocate(places, max(columns + _SPARE, self._columns), longest)
        elif not rows:
            self.end = longest
        elif self.end < longest:
            self._move(longest)

    def _allocate(self, places: int, columns: int, end: int) -> None:
        """More room; layer by layer, so that memory holds both copies of one layer only."""
        rows, width = len(self.lengths), self.end - self.begin
        for index, kv in enumerate(self._kv):
            if kv is None:
                continue
            crossing, made = index in self._cross_attention, []
            for whole in kv:
                new = whole.new_zeros(
                    places, whole.shape[1], whole.shape[2] if crossing else columns, whole.shape[3]
                )
                if crossing:
                    new[:rows] = whole[:rows]
                else:
                    new[:rows, :, end - width : end] = whole[:rows, :, self.begin : self.end]
                made.append(new)
            self._kv[index] = made[0], made[1]
        self._places, self._columns, self.end = places, columns, end

    def _move(self, end: int) -> None:
        """Let all rows end at another column."""
        rows, begin, width = len(self.lengths), self.begin, self.end - self.begin
        for index, kv in enumerate(self._kv):
            for whole in kv or () if index not in self._cross_attention else ():
                whole[:rows, :, end - width : end] = whole[:rows, :, begin : self.end].clone()
                whole[:rows, :, : end - width] = 0
        self.end = end

    def _show_cross_attention(self) -> None:
        """Transformers reads the keys of a picture where it expects them, without asking."""
        for index in self._cross_attention:
            kv = self._kv[index] if index < len(self._kv) else None
            if kv is not None:
                layer: Any = self.layers[index]
                layer.keys, layer.values = (whole[: len(self.lengths)] for whole in kv)
                layer.is_initialized = True

    # --- what transformers asks

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        """Write the next tokens' keys and values; return those of all columns in use, and these."""
        kv = self._kv[layer_idx]
        assert kv is not None  # noqa: S101 - for the type checker; `add` came before
        end = self.end + key_states.shape[2]
        for whole, new in zip(kv, (key_states, value_states), strict=True):
            whole[: len(new), :, self.end : end] = new
        return tuple(whole[: len(self.lengths), :, self.begin : end] for whole in kv)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns in use."""
        return self.end - self.begin

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Columns in use once so many are added, and the first one's number."""
        return self.end - self.begin + query_length, 0
