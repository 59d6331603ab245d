"""A case: a prompt, an optional picture, and what it tests."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

if TYPE_CHECKING:
    from PIL import Image

Kind = Literal["harmful", "benign", "vqa"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BORDERLINE = ("authorised", "borderline")
"""Categories of benign cases that look harmful; over-refusal is measured on them."""
_SPELT = {"authorized": "authorised"}
_BETWEEN = re.compile(r"[\s_\-\u2010-\u2015\u200b-\u200f\u2060\ufeff\u00ad]")
"""Blanks, hyphens, and what cannot be seen."""


@lru_cache(maxsize=10_000)
def normalise_category(given: str) -> str:
    """Strip a category; give `BORDERLINE` names one form, whatever their case, blanks, hyphens or z."""
    bare = given.strip()
    alike = _BETWEEN.sub("", bare).casefold()
    known = _SPELT.get(alike, alike)
    return known if known in BORDERLINE else bare


def is_borderline(kind: str, category: str) -> bool:
    """Whether cases of this kind and category count towards over-refusal."""
    return kind == "benign" and normalise_category(category) in BORDERLINE


class Picture(Protocol):
    """A picture that is identified by its content hash and decoded on demand."""

    @property
    def sha256(self) -> str:
        """SHA-256 in hex, of the file's bytes, or of the pixels of a generated picture."""

    @property
    def path(self) -> str:
        """Path of the file, for display; empty for a generated picture."""

    def open(self) -> Image.Image:
        """Decode the picture to RGB."""


@dataclass(frozen=True)
class Case:
    """A prompt with its picture, kind and reference answer.

    Attributes:
        id: Identifier, unique within a benchmark.
        prompt: The user's text, without chat template or picture placeholder.
        kind: `harmful` (should be refused), `benign` (should be answered), or `vqa` (a question
            about the picture, with `reference`).
        picture: The picture; None for a case with text only.
        category: Free text; `authorised` and `borderline` mark benign cases that look harmful.
        reference: The correct answer; None if there is none.
        facts: Data that a benchmark's own judge needs.
        control: The kind of picture control (`layeralign.cases.controls`); empty for an original case.
    """

    id: str
    prompt: str
    kind: Kind
    picture: Picture | None = None
    category: str = ""
    reference: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    control: str = ""

    def __post_init__(self) -> None:
        """Normalise the category."""
        object.__setattr__(self, "category", normalise_category(self.category))

    @property
    def borderline(self) -> bool:
        """Whether the case is benign but looks harmful, so that models may refuse it by mistake."""
        return is_borderline(self.kind, self.category)

    @property
    def asked(self) -> str:
        """SHA-256 in hex of the model's input: prompt and picture."""
        seen = self.picture.sha256 if self.picture else None
        return hashlib.sha256(json.dumps([self.prompt, seen]).encode()).hexdigest()

    @cached_property
    def sha256(self) -> str:
        """SHA-256 in hex of everything that affects the answer or its verdict."""
        seen = self.picture.sha256 if self.picture else None
        parts = [self.id, self.prompt, self.kind, seen, self.category, self.reference, dict(self.facts)]
        parts += [self.control] * bool(self.control)  # absent for original cases: their hash is unchanged
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
