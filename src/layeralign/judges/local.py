"""A language model on this machine that answers conversations in its own chat template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from layeralign.errors import LayeralignError
from layeralign.judges.remote import Completion, Message
from layeralign.judges.service import Failure
from layeralign.vlm import checkpoint as checkpoints
from layeralign.vlm.load import DTYPES, own_device, pretrained, tokenizer

_TOGETHER = 16
"""Conversations that are answered in one batch."""


def find(model: str, *, weights: bool = True) -> checkpoints.Checkpoint:
    """A judge's checkpoint; without `weights`, its configs are enough.

    Raises:
        LayeralignError: there is no such model, or it is not safe to load.
    """
    try:
        return checkpoints.find(model, weights=weights)
    except LayeralignError as error:
        raise LayeralignError(f"judge: {error}") from error


def look_at(model: str) -> checkpoints.Checkpoint:
    """A judge's checkpoint before its turn comes: a folder is checked whole, of a hub id only the configs."""
    return find(model, weights=Path(model).expanduser().is_dir())


class LocalSpeaker:
    """A causal language model, or one that could see pictures, too, and its chat template."""

    def __init__(self, model: Any, names: Any, checkpoint: checkpoints.Checkpoint) -> None:
        self._model, self._names, self._checkpoint = model, names, checkpoint

    @classmethod
    def load(cls, model: str, *, dtype: str = "bfloat16") -> LocalSpeaker:
        """Load a judge's model, from safetensors alone.

        Raises:
            LayeralignError: there is no such model, it is not safe to load, or has no chat template.
        """
        found = find(model)
        found.hashes  # noqa: B018 - what is loaded is what is hashed
        sees = "vision_config" in found.config()
        kind = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        names = tokenizer(found, f"judge: model {model}")
        made = pretrained(kind, found, f"judge: model {model}", dtype=DTYPES[dtype])
        legacy = found.path / "chat_template.json"  # where processors kept it
        if names.chat_template is None and legacy.is_file():
            names.chat_template = json.loads(legacy.read_text(encoding="utf-8")).get("chat_template")
        if names.chat_template is None:
            raise LayeralignError(f"judge: model {model}: has no chat template, which a judge is asked in")
        return cls(made.to(own_device()).eval(), names, found)

    def record(self) -> dict[str, Any]:
        """See `Speaker.record`."""
        return {"revision": self._checkpoint.revision, "files": self._checkpoint.hashes}

    def prompt(self, conversation: Sequence[Message]) -> list[int]:
        """Token ids of a conversation in the model's own template; one BOS, whoever writes it."""
        names = self._names
        text = names.apply_chat_template(list(conversation), tokenize=False, add_generation_prompt=True)
        written = (
            names.bos_token is not None and names.bos_token in text
        )  # Llama Guard 3 has a space before it
        return list(names(text, add_special_tokens=not written)["input_ids"])

    def ask_all(
        self, conversations: Sequence[Sequence[Message]], **settings: Any
    ) -> list[Completion | Failure]:
        """See `Speaker.ask_all`; greedy, in batches of alike lengths."""
        prompts = [self.prompt(one) for one in conversations]
        replies: list[Completion | Failure] = [Failure("not asked")] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
        for start in range(0, len(order), _TOGETHER):
            some = order[start : start + _TOGETHER]
            for at, reply in zip(some, self._answers([prompts[at] for at in some], settings), strict=True):
                replies[at] = reply
        return replies

    @torch.no_grad()
    def _answers(self, prompts: Sequence[Sequence[int]], settings: dict[str, Any]) -> list[Completion]:
        width, device = max(map(len, prompts)), self._model.device
        pad = self._names.pad_token_id
        pad = self._names.eos_token_id if pad is None else pad
        ids = torch.full((len(prompts), width), pad)
        for row, line in enumerate(prompts):
            ids[row, width - len(line) :] = torch.tensor(line)
        mask = torch.tensor([[0] * (width - len(line)) + [1] * len(line) for line in prompts])
        made = self._model.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), max_new_tokens=settings["max_tokens"],
            do_sample=False, pad_token_id=pad,
        )  # fmt: skip
        replies = made[:, width:]
        texts = self._names.batch_decode(replies, skip_special_tokens=True)
        ended = torch.isin(replies, torch.tensor(self._ends, device=device)).any(1).tolist()
        return [Completion(text, end) for text, end in zip(texts, ended, strict=True)]

    @property
    def _ends(self) -> list[int]:
        """Tokens that end a reply; none where the checkpoint names none, and then every reply is cut off."""
        ends = self._model.generation_config.eos_token_id
        return [] if ends is None else ends if isinstance(ends, list) else [ends]
