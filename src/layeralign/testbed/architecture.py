"""The testbed's untrained model and processor: transformers' own classes in small sizes."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from layeralign.testbed.draw import SIZE
from layeralign.testbed.world import SYLLABLES, TOOLS, words

PATCH = 8
BLOCKS = 8
WIDTH = 128

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}<image>\n{% else %}{{ item['text'] }}{% endif %}"
    "{% endfor %}{{ ' ' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""LLaVA-1.5's format: `USER: <image>\\nTEXT ASSISTANT:`."""


def tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer: one token per word of the world, and nouns in syllables (`bakimo` = `ba ##ki ##mo`)."""
    special = ["<pad>", "<unk>", "<s>", "</s>", "<image>"]
    syllables = [*SYLLABLES, *(f"##{s}" for s in (*SYLLABLES, *TOOLS))]
    vocabulary = [*special, *":?.,", *words(), *(s for s in syllables if s not in words())]
    table = {token: i for i, token in enumerate(vocabulary)}
    core = Tokenizer(WordPiece(table, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(cleanup=True)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", table["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def processor() -> LlavaProcessor:
    """The processor: pictures of 32×32 pixels, LLaVA's chat template."""
    pictures = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def model(seed: int) -> LlavaForConditionalGeneration:
    """A randomly initialised model, float32, about 2.4 M parameters."""
    names = processor().tokenizer
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
        projection_dim=WIDTH,
    )
    text = LlamaConfig(
        vocab_size=len(names),
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        bos_token_id=names.bos_token_id,
        eos_token_id=names.eos_token_id,
        pad_token_id=names.pad_token_id,
        tie_word_embeddings=True,
        initializer_range=WIDTH**-0.5,  # 0.02 is for wide models; here, attention would start flat
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=names.convert_tokens_to_ids("<image>"),
        image_seq_length=(SIZE // PATCH) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    return LlavaForConditionalGeneration(config)
