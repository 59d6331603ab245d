"""Tiny random models that vLLM and layeralign both read, for families that transformers and vLLM store differently."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

sys.path.append(str(Path(__file__).parents[2] / "tests"))
import recent
import tiny

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of InternVLChat's pictures; vLLM has them in its source."""


def printable(folder: Path) -> None:
    """Make a random model answer in printable ASCII: other tokens get a logit of zero.

    Its bytes are no UTF-8 otherwise, and servers decode such bytes in different ways.
    """
    ids = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    said = [id for token, id in ids.items() if token == "\u0120" or (len(token) == 1 and "!" <= token <= "~")]
    weights = load_file(folder / "model.safetensors")
    for name, weight in weights.items():
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            kept = torch.zeros(len(weight), 1)
            kept[said] = 1
            weights[name] = weight * kept
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def wider() -> Any:
    """Make `tiny` build language models with heads of 32, which vLLM's attention on a CPU needs; returns what it was."""
    narrow = tiny.text_size
    tiny.text_size = lambda names, **more: narrow(
        names, **{"hidden_size": 64, "num_key_value_heads": 2} | more
    )
    return narrow


def random_internvl(folder: Path) -> Path:
    """An InternVL in transformers' format; vLLM also wants a config for videos. Returns the folder that vLLM serves."""
    narrow = wider()
    tiny.save("internvl", folder)
    tiny.text_size = narrow
    printable(folder)
    size = {"height": tiny.SIZE, "width": tiny.SIZE}
    video = {"video_processor_type": "InternVLVideoProcessor", "size": size}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video))
    return folder


def mistral3(folder: Path) -> Path:
    """A Mistral 3; needs torchvision in this environment, too. Returns the folder that vLLM serves."""
    narrow = wider()
    tiny.save("mistral3", folder, recent.mistral3)
    tiny.text_size = narrow
    printable(folder)
    return folder


def internvl_chat(folder: Path) -> Path:
    """An InternVL in transformers' format in `folder`, and the same in InternVLChat's; returns the folder of the latter."""
    narrow = wider()
    processor, kind, config = tiny.internvl()
    tiny.text_size = narrow
    pictures = processor.image_processor
    pictures.crop_to_patches, pictures.image_mean, pictures.image_std = False, MEAN, STD
    tiny.save("internvl", folder, lambda: (processor, kind, config))
    printable(folder)
    chat = folder.with_name(folder.name + "-chat")
    shutil.copytree(folder, chat, dirs_exist_ok=True)
    weights = _chat_weights(load_file(folder / "model.safetensors"))
    save_file(weights, chat / "model.safetensors", metadata={"format": "pt"})
    (chat / "config.json").write_text(json.dumps(_chat_config(config)))
    (chat / "configuration_internvl_chat.py").write_text(_CODE)
    for left in ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"):
        (chat / left).unlink(missing_ok=True)
    template = chat / "chat_template.jinja"
    template.write_text(template.read_text().replace("<IMG_CONTEXT>", "<image>"))
    return chat


_CODE = """from transformers import PretrainedConfig, Qwen2Config


class InternVLChatConfig(PretrainedConfig):
    model_type = "internvl_chat"
    has_no_defaults_at_init = True

    def __init__(self, vision_config=None, llm_config=None, **others):
        self.vision_config = PretrainedConfig(**(vision_config or {}))
        self.llm_config = Qwen2Config(**(llm_config or {}))
        super().__init__(**others)
"""
"""The config's class: such checkpoints bring their own, which holds the fields."""
_NAMES = (
    ("vision_tower.", "vision_model."),
    ("embeddings.cls_token", "embeddings.class_embedding"),
    ("embeddings.patch_embeddings.projection", "embeddings.patch_embedding"),
    ("embeddings.position_embeddings", "embeddings.position_embedding"),
    ("encoder.layer.", "encoder.layers."),
    ("attention.projection_layer", "attn.proj"),
    ("attention.", "attn."),
    ("lambda_", "ls"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("multi_modal_projector.layer_norm", "mlp1.0"),
    ("multi_modal_projector.linear_1", "mlp1.1"),
    ("multi_modal_projector.linear_2", "mlp1.3"),
)
"""A part of transformers' name of a weight -> InternVLChat's."""


def _chat_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under InternVLChat's names, with one matrix for queries, keys and values."""
    made: dict[str, Tensor] = {}
    for name, weight in weights.items():
        new = name
        if name.startswith(("vision_tower", "multi_modal_projector")):
            for old, other in _NAMES:
                new = new.replace(old, other)
        if new.startswith("vision_model") and "q_proj" in new:
            parts = [weights[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            made[new.replace("q_proj", "qkv")] = torch.cat(parts)
        elif not new.startswith("vision_model") or not any(part in new for part in ("k_proj", "v_proj")):
            made[new] = weight
    head = made["language_model.model.embed_tokens.weight"]
    return {"language_model.lm_head.weight": head.clone(), **made}


def _chat_config(config: Any) -> dict[str, Any]:
    """The fields of config.json."""
    seen, said = config.vision_config, config.text_config.to_dict()
    same = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "norm_type")
    vision = {name: getattr(seen, name) for name in (*same, "layer_norm_eps", "hidden_act")} | {
        "image_size": seen.image_size[0],
        "patch_size": seen.patch_size[0],
        "qkv_bias": False,
        "qk_normalization": False,
        "initializer_factor": 1.0,
    }
    return {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
        "model_type": "internvl_chat",
        "vision_config": vision,
        "llm_config": {**said, "architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": False},
        "select_layer": -1,
        "downsample_ratio": config.downsample_ratio,
        "ps_version": "v2",
        "force_image_size": seen.image_size[0],
        "dynamic_image_size": False,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 1,
        "use_thumbnail": False,
        "torch_dtype": "float32",
    }


def cut(chat: Path, blocks: int) -> None:
    """Remove the encoder's later blocks from an InternVLChat checkpoint; vLLM starts with no others than it builds."""
    file = chat / "model.safetensors"
    kept = {
        name: weight
        for name, weight in load_file(file).items()
        if not name.startswith("vision_model.encoder.layers.") or int(name.split(".")[3]) < blocks
    }
    save_file(kept, file, metadata={"format": "pt"})
