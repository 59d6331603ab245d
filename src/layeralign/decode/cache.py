"""KV cache for continuous batching: preallocated, so that adding a token copies nothing.

All rows end at the same column, whatever their length, as with left padding. The next token of every row goes
into the next column, and transformers' own masks stay correct. If a row is dropped, the last row takes its
place; an added row is written so that it ends at the same column as the others.

The columns before a row's start are masked, but attention still multiplies them by a weight of 0, and 0 × NaN
is NaN. They are therefore kept at zero, since an earlier row may have left NaN there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

_SPARE = 32
"""Spare columns before all rows are moved to the left, which costs as much as one token's attention."""


class KVCache(Cache):
    """Keys and values of several rows, in the interface of transformers' `Cache`.

    Attributes:
        lengths: Number of tokens of each row.
        end: The column at which all rows end.
    """

    def __init__(self, cross_attention_layers: frozenset[int] = frozenset()) -> None:
        super().__init__(layers=[])
        self._cross_attention = cross_attention_layers
        self._kv: list[tuple[Tensor, Tensor] | None] = []  # per layer, [places, heads, columns, width]
        self.lengths: list[int] = []
        self._places = self._columns = self.end = 0

    @property
    def begin(self) -> int:
        """The first column that any row uses."""
        return self.end - max(self.lengths, default=0)

    # --- adding and dropping rows

    def add(self, made: Cache, rows: Sequence[tuple[int, int]], columns: int, places: int) -> None:
        """Copy rows of another cache.

        Args:
            made: Cache with the rows' keys and values, starting at column 0.
            rows: For each row its index in `made` (an index may repeat) and its number of tokens.
            columns: Largest length of a row.
            places: Largest number of rows.
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
        """Write rows of one layer, all of one length, into the places from `place` on."""
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
            if new is None:  # rows without a picture while others have one
                there.zero_()
            elif crossing:
                there.copy_(new[number][sources])
            else:
                there[:, :, : self.end - length] = 0
                there[:, :, self.end - length : self.end] = new[number][sources, :, :length]

    def drop(self, row: int) -> None:
        """Remove a row; the last row takes its place."""
        last = len(self.lengths) - 1
        if row != last:
            for whole in self._until_end():
                whole[row] = whole[last]
            self.lengths[row] = self.lengths[last]
        self.lengths.pop()
        self._show_cross_attention()

    def grew(self) -> None:
        """Record that every row got one more token."""
        self.lengths = [length + 1 for length in self.lengths]
        self.end += 1
        if self.end == self._columns:
            self._move(max(self.lengths))

    # --- capacity

    def _until_end(self) -> Iterator[Tensor]:
        """Every layer's keys and values up to the end of the rows, including the zeros before them."""
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
        """Reallocate with more room, layer by layer to limit the memory peak."""
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
        """Move all rows so that they end at column `end`."""
        rows, begin, width = len(self.lengths), self.begin, self.end - self.begin
        for index, kv in enumerate(self._kv):
            for whole in kv or () if index not in self._cross_attention else ():
                whole[:rows, :, end - width : end] = whole[:rows, :, begin : self.end].clone()
                whole[:rows, :, : end - width] = 0
        self.end = end

    def _show_cross_attention(self) -> None:
        """Expose a picture's keys and values as layer attributes, which transformers reads directly."""
        for index in self._cross_attention:
            kv = self._kv[index] if index < len(self._kv) else None
            if kv is not None:
                layer: Any = self.layers[index]
                layer.keys, layer.values = (whole[: len(self.lengths)] for whole in kv)
                layer.is_initialized = True

    # --- the interface of transformers' Cache

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        """Append the next tokens' keys and values; return those of all columns in use."""
        kv = self._kv[layer_idx]
        assert kv is not None  # noqa: S101 - for the type checker; `add` came before
        end = self.end + key_states.shape[2]
        for whole, new in zip(kv, (key_states, value_states), strict=True):
            whole[: len(new), :, self.end : end] = new
        return tuple(whole[: len(self.lengths), :, self.begin : end] for whole in kv)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of columns in use."""
        return self.end - self.begin

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Number of columns in use after `query_length` more tokens, and the offset of the first one."""
        return self.end - self.begin + query_length, 0
