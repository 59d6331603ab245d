"""The prompt that reaches each model: a golden text per family, from the published chat templates.

The hub cannot be reached from where this was made. `tests/templates/SOURCES.md` says of every template where its
text was taken from; `VERIFIED` are those of which independent copies agree, the others are marked unverified.
"""

import re

import pytest

import tiny
from layeralign.testing import noise
from layeralign.vlm.load import load

VERIFIED = {"llava", "llava_next", "mllama", "gemma3", "qwen2_5_vl", "idefics3", "paligemma", "paligemma2"}
UNVERIFIED = {"llava_next_vicuna", "llava_onevision", "internvl", "smolvlm", "qwen3_vl"}

ONE_TILE = "<fake_token_around_image><global-img><image>×4<fake_token_around_image>"
GOLDEN = {
    "llava": "<s>USER: <image>×16\nHello ASSISTANT:",
    "llava_next": "<s>[INST] <image>×36\nHello [/INST]",
    "llava_next_vicuna": "<s>USER: <image>×36\nHello ASSISTANT:",
    "mllama": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<|image|>×1Hello<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "llava_onevision": "<|im_start|>user <image>×36\nHello<|im_end|><|im_start|>assistant\n",
    "internvl": "<|im_start|>user\n<img><IMG_CONTEXT>×4</img>\nHello<|im_end|>\n<|im_start|>assistant\n",
    "paligemma": "<image>×16<bos>Hello\n",
    "paligemma2": "<image>×16<bos>Hello\n",
    "gemma3": "<bos><start_of_turn>user\n\n\n<start_of_image><image_soft_token>×4<end_of_image>\n\nHello"
    "<end_of_turn>\n<start_of_turn>model\n",
    "idefics3": "<|begin_of_text|>User:{tiles}Hello<end_of_utterance>\nAssistant:",
    "smolvlm": "<|im_start|>User:{tiles}Hello<end_of_utterance>\nAssistant:",
    "qwen2_5_vl": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
    "<|image_pad|>×4<|vision_end|>Hello<|im_end|>\n<|im_start|>assistant\n",
    "qwen3_vl": "<|im_start|>user\n<|vision_start|><|image_pad|>×4<|vision_end|>Hello<|im_end|>\n"
    "<|im_start|>assistant\n",
}  # fmt: skip


def tiles(rows, columns):
    """Idefics3's layout of a picture in tiles, the whole of it last."""
    lines = [
        "".join(f"<fake_token_around_image><row_{r}_col_{c}><image>×4" for c in range(1, columns + 1)) + "\n"
        for r in range(1, rows + 1)
    ]
    return "".join(lines) + "\n" + ONE_TILE


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_golden(name, tmp_path):
    vlm = load(tiny.save(name, tmp_path))
    (feature,) = vlm.encode([noise(32, 32)], [1])[1]
    ids = vlm.tokens(vlm.prompt("Hello", picture=True), feature)
    text = vlm.tokenizer.decode(ids, skip_special_tokens=False)
    mark = re.escape(vlm.picture_token)
    shown = re.sub(f"(?:{mark})+", lambda run: f"{vlm.picture_token}×{run[0].count(vlm.picture_token)}", text)
    assert shown == GOLDEN[name].format(tiles=tiles(3, 3))


def test_every_template_has_its_source():
    told = (tiny.TEMPLATES / "SOURCES.md").read_text()
    for file in tiny.TEMPLATES.glob("*.jinja"):
        assert f"## {file.name} " in told
    assert VERIFIED | UNVERIFIED == set(GOLDEN) == set(tiny.FAMILIES)
    assert not VERIFIED & UNVERIFIED
