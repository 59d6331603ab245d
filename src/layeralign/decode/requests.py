"""What an engine is asked, and what it gives back."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from layeralign.decode.decoding import FinishReason
from layeralign.vlm.vlm import Feature

K = TypeVar("K")
"""Whose an answer is: whatever the caller knows it by."""


@dataclass(frozen=True)
class Wanted(Generic[K]):
    """An answer that is wanted: whose it is - of several, where they cannot differ - and its draws' seed."""

    keys: tuple[K, ...]
    seed: int = 0


@dataclass(frozen=True)
class Prompt(Generic[K]):
    """A prompt's token ids, its picture's feature, and the answers that are wanted to it."""

    ids: Sequence[int]
    feature: Feature | None
    wanted: tuple[Wanted[K], ...]


@dataclass(frozen=True)
class Request(Generic[K]):
    """Prompts with one feature whose first `shared` ids are the same; where that is 0, a single prompt."""

    prompts: tuple[Prompt[K], ...]
    shared: int = 0

    @property
    def rows(self) -> int:
        """Answers that are wanted."""
        return sum(len(prompt.wanted) for prompt in self.prompts)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt."""
        return max(len(prompt.ids) for prompt in self.prompts)

    @property
    def read(self) -> int:
        """Tokens that have to be read."""
        return self.shared + sum(len(prompt.ids) - self.shared for prompt in self.prompts)

    def split(self, rows: int) -> tuple[Request[K], Request[K] | None]:
        """The first so many answers, at least 1, and the others."""
        first: list[Prompt[K]] = []
        others: list[Prompt[K]] = []
        for prompt in self.prompts:
            if now := prompt.wanted[:rows]:
                first.append(replace(prompt, wanted=now))
            if later := prompt.wanted[rows:]:
                others.append(replace(prompt, wanted=later))
            rows -= len(now)
        return replace(self, prompts=tuple(first)), replace(self, prompts=tuple(others)) if others else None


class Queue(Generic[K]):
    """Units in the order in which they are read, and how much they are together.

    Attributes:
        rows: answers that are wanted.
        tokens: of the prompts of all these rows.
    """

    def __init__(self) -> None:
        self._units: deque[Request[K]] = deque()
        self.rows = self.tokens = 0

    def __bool__(self) -> bool:
        return bool(self._units)

    def _count(self, unit: Request[K], sign: int) -> None:
        self.rows += sign * unit.rows
        self.tokens += sign * unit.rows * unit.longest

    def append(self, unit: Request[K]) -> None:
        """One more, the last."""
        self._units.append(unit)
        self._count(unit, 1)

    def put_back(self, requests: Sequence[Request[K]]) -> None:
        """These, before all others."""
        for unit in reversed(requests):
            self._units.appendleft(unit)
            self._count(unit, 1)

    def first(self) -> Request[K]:
        """The next one; it goes on waiting."""
        return self._units[0]

    def pop(self) -> Request[K]:
        """The next one; it waits no more."""
        unit = self._units.popleft()
        self._count(unit, -1)
        return unit


@dataclass(frozen=True)
class Generation(Generic[K]):
    """A whole answer: token ids, the end token included, and why it ended."""

    keys: tuple[K, ...]
    tokens: list[int]
    finish_reason: FinishReason


def requests(prompts: Sequence[Prompt[K]], least: int | None) -> list[Request[K]]:
    """Prompts with one feature as units: together, if sharing saves a quarter of their tokens or more.

    Args:
        prompts: at least one.
        least: how much they share if they share anything; None where they must not.
    """
    shared = 0 if least is None else _common([prompt.ids for prompt in prompts])
    saved = (len(prompts) - 1) * shared
    if shared < (least or 1) or 4 * saved < sum(len(prompt.ids) for prompt in prompts):
        return [Request((prompt,)) for prompt in prompts]
    return [Request(tuple(prompts), shared)]


def _common(lines: Sequence[Sequence[int]]) -> int:
    """How many ids all lines begin with alike, their last ones aside."""
    first, last = min(map(tuple, lines)), max(map(tuple, lines))  # what these have in common, all have
    most = min(map(len, lines)) - 1
    return next((at for at in range(most) if first[at] != last[at]), most)
