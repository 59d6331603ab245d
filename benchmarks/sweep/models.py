"""Models of real shapes with random weights, as checkpoints with a processor.

What they say is nonsense, what it costs is not. A word is a token, so that a prompt has the length that is asked for, and an answer's text shows its tokens.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from layeralign._util.quiet import quiet
from layeralign.cases.case import Case

LEAD = "A chat between a curious human and an assistant . It gives short and helpful answers ."
TEMPLATE = (
    LEAD + " USER: {% for item in messages[-1]['content'] %}{% if item['type'] == 'image' %}<image> "
    "{% else %}{{ item['text'] }}{% endif %}{% endfor %} ASSISTANT:"
)
"""LLaVA-1.5's form: a sentence before the picture, as Vicuna's has."""

SHAPES = {
    "135m": {
        "vision": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                   "num_attention_heads": 16, "image_size": 168, "patch_size": 14},
        "text": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                 "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
                 "tie_word_embeddings": True, "max_position_embeddings": 2048},
    },
    "7b": {
        "vision": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                   "num_attention_heads": 16, "image_size": 336, "patch_size": 14},
        "text": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                 "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064,
                 "max_position_embeddings": 4096},
    },
    "small": {  # the 7B script's path, on a machine without a GPU
        "vision": {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 24,
                   "num_attention_heads": 4, "image_size": 56, "patch_size": 14},
        "text": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4,
                 "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 2048,
                 "max_position_embeddings": 2048},
    },
}  # fmt: skip
"""CLIP-L at 168 pixels (144 tokens) before SmolLM-135M's shape; LLaVA-1.5-7B's; a toy of the second."""


def tokenizer(words: int) -> PreTrainedTokenizerFast:
    """A token for each of so many words, those of the template among them."""
    own = ["<pad>", "<unk>", "<s>", "</s>", "<image>", *dict.fromkeys(f"{LEAD} USER: ASSISTANT:".split())]
    table = {word: at for at, word in enumerate([*own, *(f"w{n}" for n in range(words - len(own)))])}
    core = Tokenizer(WordLevel(table, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", table["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"}, padding_side="left", clean_up_tokenization_spaces=False,
    )  # fmt: skip


def save(name: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """A shape's checkpoint, of which no answer ends before the longest length.

    Args:
        name: of `SHAPES`.
        folder: made.
        dtype: of the weights.
    """
    shape = SHAPES[name]
    vocabulary = shape["text"]["vocab_size"]
    names = tokenizer(vocabulary)
    pixels = shape["vision"]["image_size"]
    side = pixels // shape["vision"]["patch_size"]
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": pixels}, crop_size={"height": pixels, "width": pixels}
        ),
        tokenizer=names, patch_size=shape["vision"]["patch_size"], vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=TEMPLATE,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**shape["vision"], projection_dim=768),
        text_config=LlamaConfig(**shape["text"], bos_token_id=2, eos_token_id=3, pad_token_id=0),
        image_token_index=names.convert_tokens_to_ids("<image>"), image_seq_length=side * side,
        vision_feature_layer=-2, vision_feature_select_strategy="default",
        tie_word_embeddings=shape["text"].get("tie_word_embeddings", False),
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    with torch.no_grad():
        for weight_name, weight in model.named_parameters():
            if (
                weight.ndim == 2 and "vision" not in weight_name
            ):  # so that text and picture tell in the answers
                weight.normal_(0, weight.shape[-1] ** -0.5)
        model.get_output_embeddings().weight[3] = 0  # </s> is never the likeliest
    with quiet():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


def end(folder: Path, often: int) -> None:
    """Let one in so many tokens end an answer of this checkpoint from now on."""
    told = GenerationConfig.from_pretrained(folder)
    words = LlavaConfig.from_pretrained(folder).text_config.vocab_size
    told.eos_token_id = [3, *range(often, words, often)]
    told.save_pretrained(folder)


class Noise:
    """A picture of random dots."""

    path = ""

    def __init__(self, number: int) -> None:
        self.sha256 = f"noise {number}"
        self._number = number

    def open(self) -> Image.Image:
        """As RGB."""
        rng = torch.Generator().manual_seed(self._number)
        dots = torch.randint(0, 256, (12, 12, 3), generator=rng, dtype=torch.uint8).numpy()
        return Image.fromarray(dots).resize((168, 168), Image.Resampling.NEAREST)


def cases(pictures: int, prompts: int, words: int = 13) -> list[Case]:
    """So many prompts to each of so many pictures, each of so many words."""
    rng = torch.Generator().manual_seed(0)
    pool = [Noise(number) for number in range(pictures)]
    found = []
    for number, picture in enumerate(pool):
        for turn in range(prompts):
            picked = torch.randint(100, 2000, (words,), generator=rng).tolist()
            text = " ".join(f"w{n}" for n in picked)
            found.append(Case(f"{number}/{turn}", text, "benign", picture))
    return found
