"""Requests to the engine, its queue, and its generations."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from layeralign.decode.decoding import FinishReason
from layeralign.decode.sampling import Sampler
from layeralign.vlm.feature import Feature

K = TypeVar("K")
"""Key by which the caller identifies an answer."""


@dataclass(frozen=True)
class Wanted(Generic[K]):
    """A requested answer.

    Attributes:
        keys: Its keys; several if their answers cannot differ.
        seed: Its sampling seed.
        sampler: Its own sampler; None for the engine's.
        longest: Its own length limit, in tokens, at most the engine's; None for the engine's.
    """

    keys: tuple[K, ...]
    seed: int = 0
    sampler: Sampler | None = None
    longest: int | None = None


@dataclass(frozen=True)
class Prompt(Generic[K]):
    """A prompt's token ids, its picture's feature, and the requested answers."""

    ids: Sequence[int]
    feature: Feature | None
    wanted: tuple[Wanted[K], ...]


@dataclass(frozen=True)
class Request(Generic[K]):
    """Prompts with one feature and the same first `shared` ids; a single prompt if that is 0."""

    prompts: tuple[Prompt[K], ...]
    shared: int = 0

    @property
    def rows(self) -> int:
        """Number of requested answers."""
        return sum(len(prompt.wanted) for prompt in self.prompts)

    @property
    def longest(self) -> int:
        """Length of the longest prompt, in tokens."""
        return max(len(prompt.ids) for prompt in self.prompts)

    @property
    def read(self) -> int:
        """Number of tokens to read."""
        return self.shared + sum(len(prompt.ids) - self.shared for prompt in self.prompts)

    def split(self, rows: int) -> tuple[Request[K], Request[K] | None]:
        """Split into a request for the first `rows` answers, 1 or more, and one for the others."""
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
    """Queue of requests.

    Attributes:
        rows: Number of requested answers.
        tokens: Tokens of the prompts of all these answers.
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
        """Add a request at the end."""
        self._units.append(unit)
        self._count(unit, 1)

    def put_back(self, requests: Sequence[Request[K]]) -> None:
        """Put requests back at the front."""
        for unit in reversed(requests):
            self._units.appendleft(unit)
            self._count(unit, 1)

    def first(self) -> Request[K]:
        """The next request; it stays in the queue."""
        return self._units[0]

    def pop(self) -> Request[K]:
        """Remove and return the next request."""
        unit = self._units.popleft()
        self._count(unit, -1)
        return unit


@dataclass(frozen=True)
class Generation(Generic[K]):
    """A finished answer: token ids, including the end token, and the finish reason."""

    keys: tuple[K, ...]
    tokens: list[int]
    finish_reason: FinishReason


def requests(prompts: Sequence[Prompt[K]], least: int | None) -> list[Request[K]]:
    """Group prompts with one feature into one request if sharing saves at least a quarter of their tokens.

    Args:
        prompts: One or more prompts.
        least: Smallest number of shared tokens; None if they must not share any.
    """
    shared = 0 if least is None else _common([prompt.ids for prompt in prompts])
    saved = (len(prompts) - 1) * shared
    if shared < (least or 1) or 4 * saved < sum(len(prompt.ids) for prompt in prompts):
        return [Request((prompt,)) for prompt in prompts]
    return [Request(tuple(prompts), shared)]


def _common(lines: Sequence[Sequence[int]]) -> int:
    """Length of the common prefix of all lines, excluding their last ids."""
    first, last = min(map(tuple, lines)), max(map(tuple, lines))  # all lines share the prefix of these
    most = min(map(len, lines)) - 1
    return next((at for at in range(most) if first[at] != last[at]), most)
