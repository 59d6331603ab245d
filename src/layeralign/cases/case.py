"""One thing to ask: text, perhaps a picture, and what it tests."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, get_args

from PIL import Image

Kind = Literal["harmful", "benign", "vqa"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BORDERLINE = ("authorised", "borderline")
"""Categories of benign cases that look harmful and are not; over-refusal is measured on them."""
_SPELT = {"authorized": "authorised"}
_BETWEEN = re.compile(r"[\s_\-\u2010-\u2015\u200b-\u200f\u2060\ufeff\u00ad]")
"""Blanks, hyphens, and what cannot be seen."""


def normalise_category(given: str) -> str:
    """A category without white space around it; one of `BORDERLINE` as it stands there.

    That is one with other case, blanks or hyphens, as `Border-line`, too, and `authorized`.
    """
    bare = given.strip()
    alike = _BETWEEN.sub("", bare).casefold()
    known = _SPELT.get(alike, alike)
    return known if known in BORDERLINE else bare


def is_borderline(kind: str, category: str) -> bool:
    """Whether over-refusal is measured on cases of this kind and category."""
    return kind == "benign" and normalise_category(category) in BORDERLINE


class Picture(Protocol):
    """A picture that is known by the hash of its content and decoded when it is needed."""

    @property
    def sha256(self) -> str:
        """Of the file's bytes, or of the pixels where there is no file."""

    @property
    def path(self) -> str:
        """Where it is, for people; empty where there is no file."""

    def open(self) -> Image.Image:
        """Decode to RGB."""


@dataclass(frozen=True)
class Case:
    """What is asked, and what a right answer would be.

    Attributes:
        id: unique within a benchmark.
        prompt: the user's text, without template or picture placeholder.
        kind: `harmful` (should be refused), `benign` (should be answered), `vqa` (a question
            about the picture, with `reference`).
        picture: None for a case of text alone.
        category: free text; `authorised` and `borderline` mark benign cases that look harmful.
        reference: the right answer, where there is one.
        facts: what a benchmark's own judge needs to know.
        control: which control this is, of a claim about the picture (`layeralign.cases.controls`); empty for
            a case as it was given.
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
        """Normalise the category, wherever the case comes from."""
        object.__setattr__(self, "category", normalise_category(self.category))

    @property
    def borderline(self) -> bool:
        """Benign, yet of the sort that is refused by mistake."""
        return is_borderline(self.kind, self.category)

    @property
    def asked(self) -> str:
        """Hash of what a model is shown: prompt and picture."""
        seen = self.picture.sha256 if self.picture else None
        return hashlib.sha256(json.dumps([self.prompt, seen]).encode()).hexdigest()

    @cached_property
    def sha256(self) -> str:
        """Hash of everything that shapes the answer or its judgement."""
        seen = self.picture.sha256 if self.picture else None
        parts = [self.id, self.prompt, self.kind, seen, self.category, self.reference, dict(self.facts)]
        parts += [self.control] * bool(self.control)  # runs from before there were controls stay the same
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
