"""A local language model that answers conversations in its own chat template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, GenerationConfig
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList

from layeralign._util.files import expanded
from layeralign.errors import LayeralignError
from layeralign.judges.models.remote import Completion, Message
from layeralign.judges.models.service import Failure
from layeralign.vlm import checkpoint as checkpoints
from layeralign.vlm import rope
from layeralign.vlm.load import own_device, pretrained, tokenizer
from layeralign.vlm.text import template

_TOGETHER = 16
"""Conversations per batch."""


def find(model: str, *, weights: bool = True) -> checkpoints.Checkpoint:
    """Find a judge's checkpoint; without `weights`, only its configs are needed.

    Raises:
        LayeralignError: The model does not exist, or is not safe to load.
    """
    try:
        return checkpoints.find(model, weights=weights)
    except LayeralignError as error:
        raise LayeralignError(f"judge: {error}") from error


def look_at(model: str) -> checkpoints.Checkpoint:
    """Check a judge's checkpoint before it is loaded: all of a folder, only the configs of a hub id."""
    return find(model, weights=expanded(model).is_dir())


class LocalSpeaker:
    """A causal or vision-language model with its chat template."""

    def __init__(self, model: Any, names: Any, checkpoint: checkpoints.Checkpoint) -> None:
        self._model, self._names, self._checkpoint = model, names, checkpoint
        self._writes_bos: bool | None = None  # whether the template writes BOS; set by the first prompt

    @classmethod
    def load(cls, model: str, *, dtype: str = "bfloat16") -> LocalSpeaker:
        """Load a judge's model, from safetensors only.

        Args:
            model: A folder or a hub id.
            dtype: Precision of the weights, one of `layeralign.vlm.checkpoint.DTYPES`.

        Raises:
            LayeralignError: The model does not exist, is not safe to load, or has no chat template.
        """
        found = find(model)
        found.hashes  # noqa: B018 - hash the files before they are loaded
        sees = "vision_config" in found.config()
        kind = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        names = tokenizer(found, f"judge: model {model}")
        made = pretrained(kind, found, f"judge: model {model}", dtype=getattr(torch, dtype))
        made.generation_config = GenerationConfig(  # without penalties, which would weigh on `safe`
            eos_token_id=made.generation_config.eos_token_id
        )
        legacy = found.path / "chat_template.json"  # where older processors stored it
        if names.chat_template is None and legacy.is_file():
            names.chat_template = json.loads(legacy.read_text(encoding="utf-8")).get("chat_template")
        if names.chat_template is None:
            raise LayeralignError(
                f"judge: model {model}: has no chat template, which a judge's prompt needs; use a chat model"
            )
        return cls(made.to(own_device()).eval(), names, found)

    def record(self) -> dict[str, Any]:
        """See `Speaker.record`."""
        return {"revision": self._checkpoint.revision, "files": self._checkpoint.hashes}

    def prompt(self, conversation: Sequence[Message]) -> list[int]:
        """Token ids of a conversation in the model's own template, with exactly one BOS.

        Raises:
            LayeralignError: the template loses a text.
        """
        if self._writes_bos is None:
            bos, made = self._names.bos_token, self._rendered(_blank(conversation))
            template.check_turns(made, len(conversation), f"judge: model {self._checkpoint.name}")
            self._writes_bos = bool(bos) and bos in made
        before = template.written_before(self._names)
        return template.encode(self._names, self._rendered(conversation), before, writes_bos=self._writes_bos)

    def _rendered(self, conversation: Sequence[Message]) -> str:
        return template.render(
            self._names, f"judge: model {self._checkpoint.name}", conversation, template.JUDGE_DATE,
            tokenize=False, add_generation_prompt=True,
        )  # fmt: skip

    def ask_all(
        self, conversations: Sequence[Sequence[Message]], **settings: Any
    ) -> list[Completion | Failure]:
        """See `Speaker.ask_all`; decoding is greedy, in batches of similar length."""
        prompts = [self.prompt(one) for one in conversations]
        replies: list[Completion | Failure] = [Failure("longer than the judge's context")] * len(prompts)
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        fits = (
            at
            for at, line in enumerate(prompts)
            if not context or len(line) + settings["max_tokens"] <= context
        )
        order = sorted(fits, key=lambda at: len(prompts[at]))
        together = 1 if rope.apart(self._model.config) else _TOGETHER
        for start in range(0, len(order), together):
            some = order[start : start + together]
            for at, reply in zip(some, self._answers([prompts[at] for at in some], settings), strict=True):
                replies[at] = reply
        return replies

    @torch.no_grad()
    def _answers(
        self, prompts: Sequence[Sequence[int]], settings: dict[str, Any]
    ) -> list[Completion | Failure]:
        rope.reset(self._model)
        width, device = max(map(len, prompts)), self._model.device
        pad = self._names.pad_token_id
        pad = self._names.eos_token_id if pad is None else pad
        ids = torch.full((len(prompts), width), pad)
        for row, line in enumerate(prompts):
            ids[row, width - len(line) :] = torch.tensor(line)
        mask = torch.tensor([[0] * (width - len(line)) + [1] * len(line) for line in prompts])
        watch = _Finite(len(prompts), device)
        made = self._model.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), max_new_tokens=settings["max_tokens"],
            do_sample=False, pad_token_id=pad, eos_token_id=self._ends or None,
            logits_processor=LogitsProcessorList([watch]),
        )  # fmt: skip
        replies = made[:, width:]
        texts = self._names.batch_decode(replies, skip_special_tokens=True)
        ended = torch.isin(replies, torch.tensor(self._ends, device=device)).any(1).tolist()
        return [
            Completion(text, end) if fine else Failure("the judge's logits were not finite numbers")
            for text, end, fine in zip(texts, ended, watch.rows.tolist(), strict=True)
        ]

    @property
    def _ends(self) -> list[int]:
        """Tokens that end a reply, of generation_config and tokenizer; without any, all replies are cut."""
        named = self._model.generation_config.eos_token_id
        ends = [*(named if isinstance(named, list) else [named]), self._names.eos_token_id]
        return sorted({end for end in ends if end is not None})


class _Finite(LogitsProcessor):
    """Tracks which rows had only finite logits; `generate` itself would turn NaN into token 0."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.rows = torch.ones(rows, dtype=torch.bool, device=device)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.rows &= scores.amax(-1).isfinite()
        return scores


def _blank(conversation: Sequence[Message]) -> list[Message]:
    """The conversation with every text replaced by a sentinel."""

    def blank(content: Any) -> Any:
        if isinstance(content, str):
            return template.SENTINEL
        return [part | {"text": template.SENTINEL} if "text" in part else part for part in content]

    return [message | {"content": blank(message["content"])} for message in conversation]
