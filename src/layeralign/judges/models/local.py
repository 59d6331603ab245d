"""A local language model that answers conversations in its own chat template, or completes whole prompts."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, GenerationConfig
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList

from layeralign._util.files import expanded
from layeralign.errors import LayeralignError
from layeralign.judges.models.remote import Completion, Message, Talk
from layeralign.judges.models.service import Failure
from layeralign.vlm import checkpoint as checkpoints
from layeralign.vlm import limits, rope
from layeralign.vlm import processor as processors
from layeralign.vlm.load import own_device, pretrained, tokenizer, unloadable
from layeralign.vlm.text import template, trial
from layeralign.vlm.text.ends import token_ids

_TOGETHER = 16
"""Conversations per batch."""
TOO_LONG = Failure("longer than the judge's context")
"""The reply to a conversation that the model was not made for."""


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
    """A causal or vision-language model with its tokenizer, or with the processor of its pictures."""

    def __init__(
        self, model: Any, names: Any, checkpoint: checkpoints.Checkpoint, processor: Any = None
    ) -> None:
        self._model, self._names, self._checkpoint = model, names, checkpoint
        self._processor = processor
        self._writes_bos: bool | None = None  # whether the template writes BOS; set by the first prompt

    @classmethod
    def load(
        cls, model: str, *, dtype: str = "bfloat16", chat: bool = True, sees: bool = False
    ) -> LocalSpeaker:
        """Load a judge's model, from safetensors only.

        Args:
            model: A folder or a hub id.
            dtype: Precision of the weights, one of `layeralign.vlm.checkpoint.DTYPES`.
            chat: Whether it answers messages, for which it needs a chat template, or completes prompts.
            sees: Whether it must see pictures.

        Raises:
            LayeralignError: The model does not exist, is not safe to load, has no chat template, or cannot
                see pictures.
        """
        found = find(model)
        found.hashes  # noqa: B018 - hash the files before they are loaded
        multimodal = "vision_config" in found.config()
        kind = AutoModelForImageTextToText if multimodal else AutoModelForCausalLM
        names = tokenizer(found, f"judge: model {model}")
        processor = _processor(found, model) if sees else None
        made = pretrained(kind, found, f"judge: model {model}", dtype=getattr(torch, dtype))
        made.generation_config = GenerationConfig(  # without penalties, which would weigh on `safe`
            eos_token_id=made.generation_config.eos_token_id
        )
        try:
            token_ids(made.generation_config.eos_token_id)
        except ValueError as error:
            raise unloadable(f"judge: model {model}: generation_config.json: eos_token_id", error) from error
        legacy = found.path / "chat_template.json"  # where older processors stored it
        if names.chat_template is None and legacy.is_file():
            names.chat_template = checkpoints.read_json(legacy).get("chat_template")
        if chat and names.chat_template is None:
            raise LayeralignError(
                f"judge: model {model}: has no chat template, which a judge's prompt needs; use a chat model"
            )
        return cls(made.to(own_device()).eval(), names, found, processor)

    def record(self) -> dict[str, Any]:
        """See `Speaker.record`."""
        return {"revision": self._checkpoint.revision, "files": self._checkpoint.hashes}

    def prompt(self, conversation: Talk, options: Mapping[str, Any] | None = None) -> list[int]:
        """Token ids of a conversation in the model's template, or of a whole prompt, with exactly one BOS.

        Args:
            conversation: Messages, or a whole prompt.
            options: Arguments of the chat template.

        Raises:
            LayeralignError: the template loses a text.
        """
        before = template.written_before(self._names)
        text, writes_bos = self._text(conversation, options or {})
        return template.encode(self._names, text, before, writes_bos=writes_bos)

    def _text(self, conversation: Talk, options: Mapping[str, Any]) -> tuple[str, bool]:
        """The text of a conversation, and whether the BOS is in it."""
        if isinstance(conversation, str):
            return conversation, False
        if self._writes_bos is None:
            bos, made = self._names.bos_token, self._rendered(_blank(conversation), options)
            template.check_turns(made, len(conversation), f"judge: model {self._checkpoint.name}")
            self._writes_bos = bool(bos) and bos in made
        return self._rendered(conversation, options), self._writes_bos

    def _rendered(self, conversation: Sequence[Message], options: Mapping[str, Any]) -> str:
        return template.render(
            self._names, f"judge: model {self._checkpoint.name}", conversation, template.JUDGE_DATE,
            tokenize=False, add_generation_prompt=True, **options,
        )  # fmt: skip

    def ask_all(self, conversations: Sequence[Talk], **settings: Any) -> list[Completion | Failure]:
        """See `Speaker.ask_all`; decoding is greedy, in batches of similar length, pictures one by one."""
        options = settings.get("chat_template_kwargs", {})
        shown = {at: found for at, one in enumerate(conversations) if (found := _without_pictures(one))}
        told = [at for at in range(len(conversations)) if at not in shown]
        prompts = [self.prompt(conversations[at], options) for at in told]
        replies = dict(zip(told, self._of_texts(prompts, settings), strict=True))
        for at, (talk, pictures) in shown.items():
            replies[at] = self._of_pictures(*self._text(talk, options), pictures, settings)
        return [replies[at] for at in range(len(conversations))]

    def _of_pictures(
        self, text: str, writes_bos: bool, pictures: Sequence[Image.Image], settings: dict[str, Any]
    ) -> Completion | Failure:
        if self._processor is None:
            raise LayeralignError(
                f"judge: model {self._checkpoint.name}: was loaded without its processor and sees no picture"
            )
        before = template.written_before(self._names)
        text = text if writes_bos or not before else self._names.decode(before) + text
        with limits.used(f"judge: model {self._checkpoint.name}", "a picture", "the files of its processor"):
            made = self._processor(  # whole: a tokenizer.json may cut off, or fill up, what a processor reads
                text=[text], images=[list(pictures)], add_special_tokens=False, truncation=False,
                padding=False, return_tensors="pt",
            )  # fmt: skip
        if not self._fits(made["input_ids"].shape[1], settings):
            return TOO_LONG
        given = {
            name: value.to(self._model.device, self._model.dtype if value.is_floating_point() else None)
            for name, value in made.items()
        }
        return self._generated(given, settings)[0]

    def _fits(self, tokens: int, settings: Mapping[str, Any]) -> bool:
        """Whether a prompt of so many tokens and its reply are in the model's context."""
        context = rope.context(self._model.config.get_text_config())
        return not context or tokens + int(settings["max_tokens"]) <= context

    def _of_texts(
        self, prompts: Sequence[Sequence[int]], settings: dict[str, Any]
    ) -> list[Completion | Failure]:
        replies: list[Completion | Failure] = [TOO_LONG] * len(prompts)
        fits = (at for at, line in enumerate(prompts) if self._fits(len(line), settings))
        order = sorted(fits, key=lambda at: len(prompts[at]))
        together = 1 if rope.apart(self._model.config) else _TOGETHER
        for start in range(0, len(order), together):
            some = order[start : start + together]
            for at, reply in zip(some, self._answers([prompts[at] for at in some], settings), strict=True):
                replies[at] = reply
        return replies

    def _answers(
        self, prompts: Sequence[Sequence[int]], settings: dict[str, Any]
    ) -> list[Completion | Failure]:
        width, device = max(map(len, prompts)), self._model.device
        ids = torch.full((len(prompts), width), self._pad)
        for row, line in enumerate(prompts):
            ids[row, width - len(line) :] = torch.tensor(line)
        mask = torch.tensor([[0] * (width - len(line)) + [1] * len(line) for line in prompts])
        return self._generated({"input_ids": ids.to(device), "attention_mask": mask.to(device)}, settings)

    @torch.no_grad()
    def _generated(self, given: dict[str, Any], settings: dict[str, Any]) -> list[Completion | Failure]:
        """Replies to encoded prompts, one per row of `input_ids`."""
        rope.reset(self._model)
        (rows, width), device = given["input_ids"].shape, self._model.device
        watch = _Finite(rows, device)
        with limits.used(f"judge: model {self._checkpoint.name}"):
            made = self._model.generate(
                **given, max_new_tokens=settings["max_tokens"], do_sample=False, pad_token_id=self._pad,
                eos_token_id=self._ends or None, logits_processor=LogitsProcessorList([watch]),
            )  # fmt: skip
        replies = made[:, width:]
        texts = self._names.batch_decode(replies, skip_special_tokens=True)
        ended = torch.isin(replies, torch.tensor(self._ends, device=device)).any(1).tolist()
        return [
            Completion(text, end) if fine else Failure("the judge's logits were not finite numbers")
            for text, end, fine in zip(texts, ended, watch.rows.tolist(), strict=True)
        ]

    @property
    def _pad(self) -> int:
        pad = self._names.pad_token_id
        return int((self._names.eos_token_id or 0) if pad is None else pad)  # masked, so any id would do

    @property
    def _ends(self) -> list[int]:
        """Tokens that end a reply, of generation_config and tokenizer; without any, all replies are cut."""
        return sorted(
            token_ids(self._model.generation_config.eos_token_id) | token_ids(self._names.eos_token_id)
        )


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


def _without_pictures(conversation: Talk) -> tuple[list[Message], list[Image.Image]] | None:
    """The conversation with places for its pictures, and the pictures; None if it has none."""
    if isinstance(conversation, str):
        return None
    pictures: list[Image.Image] = []

    def place(part: Message) -> Message:
        if part["type"] != "image_url":
            return part
        content = part["image_url"]["url"].partition(",")[2]
        pictures.append(Image.open(BytesIO(base64.b64decode(content))).convert("RGB"))
        return {"type": "image"}

    turns = [
        turn if isinstance(turn["content"], str) else turn | {"content": [place(p) for p in turn["content"]]}
        for turn in conversation
    ]
    return (turns, pictures) if pictures else None


def _processor(found: checkpoints.Checkpoint, model: str) -> Any:
    """The processor of a model that must see pictures."""
    kind = str(found.config().get("model_type"))
    trial.check(lambda: processors.load(found.path, kind), f"judge: model {model}")
    try:
        processor = processors.load(found.path, kind)
    except Exception as error:  # transformers raises many kinds for a broken checkpoint
        raise unloadable(f"judge: model {model}: its processor", error) from error
    if not hasattr(processor, "image_processor"):
        raise LayeralignError(
            f"judge: model {model}: has no processor for pictures, which this judge must see; use a model "
            "that has one"
        )
    return processor
