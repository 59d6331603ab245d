"""The natural testbed's model before training: a LLaVA of the pretrained parts, and its processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Dinov2Config, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from layeralign.testbed.natural import parts
from layeralign.testbed.natural.pictures import SIZE

PATCH = 14
SIDE = SIZE // PATCH
"""Patches in a row; the language model reads SIDE * SIDE picture tokens."""
PICTURE_TOKEN = "<filename>"
"""A token of the vocabulary that chats do not use; it marks the places of a picture's features."""
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}<filename>\n{% else %}{{ item['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""SmolLM2's format, without its system prompt."""


@dataclass(frozen=True)
class Parts:
    """What a build starts from.

    Attributes:
        language: The pretrained causal language model, with LLaMA's architecture.
        tokenizer: Its tokenizer.
        tower: Weights of `Dinov2Model`; None for random ones.
        tower_config: Shape of the tower.
    """

    language: Any
    tokenizer: Any
    tower: dict[str, Tensor] | None
    tower_config: Dinov2Config


def pretrained() -> Parts:
    """The pretrained parts, downloaded at the first call."""
    language, tokenizer = parts.language(parts.fetch(parts.LANGUAGE))
    config = Dinov2Config(
        hidden_size=384, num_hidden_layers=12, num_attention_heads=6, patch_size=PATCH, image_size=SIZE
    )
    return Parts(language, tokenizer, parts.tower(parts.fetch(parts.TOWER), SIDE), config)


def processor(tokenizer: Any) -> LlavaProcessor:
    """The processor: pictures of 42×42 pixels, ImageNet's mean and deviation, SmolLM2's chat format."""
    tokenizer.padding_side = "left"
    tokenizer.chat_template = None
    tokenizer.image_token = PICTURE_TOKEN
    pictures = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
        image_token=PICTURE_TOKEN,
    )


def assemble(given: Parts, seed: int) -> LlavaForConditionalGeneration:
    """A LLaVA of the parts in float32, whose projector has random weights from the seed."""
    config = LlavaConfig(
        vision_config=given.tower_config,
        text_config=given.language.config,
        image_token_index=given.tokenizer.convert_tokens_to_ids(PICTURE_TOKEN),
        image_seq_length=SIDE * SIDE,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    made = LlavaForConditionalGeneration(config)
    if given.tower is not None:
        made.model.vision_tower.load_state_dict(given.tower)
    made.model.language_model.load_state_dict(given.language.model.state_dict())
    made.tie_weights()
    made.eval()
    return made


def padded(rows: Sequence[list[int]], filler: int, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Token ids and mask, int64 [rows, length]."""
    longest = max(map(len, rows))
    ids, mask = torch.full((len(rows), longest), filler), torch.zeros(len(rows), longest, dtype=torch.long)
    for at, row in enumerate(rows):
        where = slice(longest - len(row), None) if left else slice(0, len(row))
        ids[at, where], mask[at, where] = torch.tensor(row), 1
    return ids, mask


def freeze_in(dtype: str, model: Any) -> None:
    """Hold a model's frozen language model in a number format; PEFT's LoRA and the projector stay float32.

    In bfloat16, attention is computed by matrix products: the backward pass of torch's fused attention takes
    half of a step on a CPU.

    Args:
        dtype: `float32`, which changes nothing, or `bfloat16`.
        model: a LLaVA.
    """
    if dtype == "float32":
        return
    language = model.model.language_model
    language.config._attn_implementation = "eager"
    for part in (language, model.lm_head):
        part.to(getattr(torch, dtype))
