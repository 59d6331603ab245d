"""Language models that give the probability of an answer, given the request without a picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from layeralign._util.text import printable
from layeralign.cases.dialogue import dialogue
from layeralign.errors import LayeralignError
from layeralign.judges.models import local
from layeralign.vlm import limits, rope
from layeralign.vlm.checkpoint import Checkpoint
from layeralign.vlm.families.registry import family_of
from layeralign.vlm.load import load, own_device, pretrained, tokenizer
from layeralign.vlm.text.template import JUDGE_DATE, written_before
from layeralign.vlm.vlm import Vlm

_TOGETHER = 2048
"""Tokens per pass, padding included; a single row may be longer."""


@dataclass(frozen=True)
class Row:
    """Token ids of a request and its answer; the answer starts at index `start`, at least 1."""

    ids: list[int]
    start: int


class Reference(ABC):
    """A language model.

    Attributes:
        checkpoint: The checkpoint it was loaded from.
        longest: Length of its context in tokens; None if unlimited.
        dtype: Precision of its weights.
        apart: Whether rows are read one by one, since its rotary embeddings depend on the longest row of a
            batch.
    """

    checkpoint: Checkpoint
    longest: int | None
    dtype: str
    apart: bool

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Size of the vocabulary."""

    @abstractmethod
    def row(self, prompt: str, answer: str) -> Row:
        """Token ids of a request and its answer, in the model's format."""

    @abstractmethod
    def logits(self, ids: Tensor, prompt: Tensor, at: Tensor) -> Tensor:
        """Logits of the next token at selected positions.

        Args:
            ids: Token ids, int64 [rows, tokens], padded on the right with 0.
            prompt: Mask of the requests' tokens, bool [rows, tokens].
            at: Mask of the selected positions, bool [rows, tokens].

        Returns:
            Logits [positions, vocabulary], row by row.
        """

    @torch.no_grad()
    def surprise(self, rows: Sequence[Row]) -> list[list[float]]:
        """The cost -ln p of each answer token, in nats, per row; every token is counted once."""
        found: list[list[float]] = [[] for _ in rows]
        parts = [(at, part) for at, row in enumerate(rows) for part in windows(row, self.longest)]
        for some in _batches(parts, 1 if self.apart else _TOGETHER):
            ids = pad_sequence([torch.tensor(part.ids) for _, part in some], batch_first=True)
            place = torch.arange(ids.shape[1])
            starts = torch.tensor([[part.start] for _, part in some])
            ends = torch.tensor([[len(part.ids)] for _, part in some])
            at = (place >= starts - 1) & (place < ends - 1)
            device = own_device()
            logits = self.logits(ids.to(device), (place < starts).to(device), at.to(device))
            costs = cross_entropy(logits.float(), ids[:, 1:][at[:, :-1]].to(device), reduction="none")
            lengths = [len(part.ids) - part.start for _, part in some]
            for (row, _), spent in zip(some, costs.split(lengths), strict=True):
                found[row] += spent.tolist()
        return found

    def record(self) -> dict[str, Any]:
        """The record that identifies the model."""
        about = self.checkpoint
        return {"revision": about.revision, "files": about.hashes, "dtype": self.dtype}


def windows(row: Row, longest: int | None) -> Iterator[Row]:
    """Split a row into windows of at most `longest` tokens; each answer token is scored in one window.

    The start of a request is cut off if the request takes more than half of the context. If the answer
    does not fit, its tokens are scored with at least half a window before them.
    """
    if longest is None or len(row.ids) <= longest:
        yield row
        return
    half = longest // 2
    ids, done = row.ids[max(0, row.start - half) :], min(row.start, half)
    begin = 0
    while done < len(ids):
        yield Row(ids[begin : begin + longest], done - begin)
        done = begin + longest
        begin = done - half


def _batches(parts: list[tuple[int, Row]], tokens: int) -> Iterator[list[tuple[int, Row]]]:
    """Group windows of similar length into batches of at most `tokens`; windows of a row stay in order."""
    some: list[tuple[int, Row]] = []
    for part in sorted(parts, key=lambda part: len(part[1].ids), reverse=True):
        width = len(some[0][1].ids) if some else 0
        if some and width * (len(some) + 1) > tokens:
            yield some
            some = []
        some.append(part)
    if some:
        yield some


class LanguageModel(Reference):
    """Any causal language model; it reads request and answer in HH-RLHF's plain format."""

    def __init__(self, model: Any, names: Any, checkpoint: Checkpoint, dtype: str) -> None:
        self._model, self._names, self.checkpoint, self.dtype = model, names, checkpoint, dtype
        self.longest = rope.context(model.config)
        self.apart = rope.apart(model.config)

    @property
    def vocabulary(self) -> int:
        """See `Reference.vocabulary`."""
        return int(self._model.config.vocab_size)

    def row(self, prompt: str, answer: str) -> Row:
        """See `Reference.row`; the answer starts where the tokens differ from those without it.

        An end token that the tokenizer adds does not belong to the answer.
        """
        texts = [dialogue(prompt, "").removesuffix(" "), dialogue(prompt, answer)]
        made = self._names(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        asked, ids = ([*written_before(self._names), *line] for line in made)
        same = (at for at, (one, other) in enumerate(zip(asked, ids, strict=False)) if one != other)
        return Row(list(ids), max(1, next(same, min(len(asked), len(ids)))))

    def logits(self, ids: Tensor, prompt: Tensor, at: Tensor) -> Tensor:
        """See `Reference.logits`; causal attention is enough to hide the padding."""
        with limits.used(f"judge: model {self.checkpoint.name}"):
            found: Tensor = self._model(input_ids=ids, use_cache=False).logits[at]
        return found


class Target(Reference):
    """A vision-language model, used without a picture in its own chat template."""

    def __init__(self, vlm: Vlm, dtype: str) -> None:
        self._vlm, self.checkpoint, self.dtype = vlm, vlm.checkpoint, dtype
        self.longest = rope.context(vlm.model.config.get_text_config())
        self.apart = rope.apart(vlm.model.config)

    @property
    def vocabulary(self) -> int:
        """See `Reference.vocabulary`."""
        return int(self._vlm.model.config.get_text_config().vocab_size)

    def row(self, prompt: str, answer: str) -> Row:
        """See `Reference.row`."""
        vlm = self._vlm
        text = vlm.prompt(vlm.literal(prompt), picture=False, date=JUDGE_DATE)
        asked = vlm.tokens(text, None)
        ids = vlm.tokenizer(answer.strip(), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return Row([*asked, *ids], len(asked))

    def logits(self, ids: Tensor, prompt: Tensor, at: Tensor) -> Tensor:
        """See `Reference.logits`."""
        return self._vlm.logits(self._vlm.hidden(ids, prompt, [None] * len(ids))[at])


def check(model: str, config: Mapping[str, Any]) -> None:
    """Check that a config is of a model with a language head.

    Raises:
        LayeralignError: It is of another kind, whose language head would be random or missing.
    """
    if "vision_config" in config:
        family_of(model, dict(config))
        return
    kind = limits.class_of(config)
    if not kind.endswith(("ForCausalLM", "LMHeadModel")):
        raise LayeralignError(
            f"judge coherence:{model}: config.json names the class {printable(kind, 60)}; expected a causal "
            "language model (*ForCausalLM, *LMHeadModel) or a vision-language model"
        )


def look_at(model: str) -> None:
    """Check a reference model without loading it.

    Raises:
        LayeralignError: See `load_reference`.
    """
    if model != "testbed":
        check(model, local.look_at(model).config())


def load_reference(model: str) -> Reference:
    """Load a reference model in its checkpoint's own precision.

    Args:
        model: Folder or hub id of a causal language model or vision-language model, or `testbed`.

    Raises:
        LayeralignError: The model does not exist, is not safe to load, or is of another kind.
    """
    if model == "testbed":
        return Target(load(model, dtype="float32"), "float32")
    found, what = local.find(model), f"judge: model {model}"
    config = found.config()
    check(model, config)
    dtype = found.dtype()
    if "vision_config" in config:
        return Target(load(model, dtype=dtype), dtype)
    found.hashes  # noqa: B018 - hash the files before they are loaded
    names = tokenizer(found, what)
    made = pretrained(AutoModelForCausalLM, found, what, dtype=getattr(torch, dtype))
    return LanguageModel(made.to(own_device()).eval(), names, found, dtype)
