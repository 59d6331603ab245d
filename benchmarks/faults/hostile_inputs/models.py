"""Hostile checkpoints and adapters. Whatever of them ran as code would create the file `canary`."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

import test_adapter_config
from test_trial import LOOPS, TEMPLATES

Build = Callable[[Path, Path], object]
"""Changes a folder with a good model; the second argument is the canary."""
WEIGHTS, ADAPTER = "model.safetensors", "adapter_model.safetensors"
HUGE = 10**9


class Bomb:
    """Creates the canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.canary, "w")


def sets(file: str, *path: str, to: Any) -> Build:
    """Set one field of a JSON file."""

    def build(folder: Path, canary: Path) -> None:
        place = folder / file
        content = json.loads(place.read_text()) if place.exists() else {}
        inner = content
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = to
        place.write_text(json.dumps(content))

    return build


def writes(file: str, content: str | bytes) -> Build:
    """Replace a file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder, canary: (folder / file).write_bytes(data)


def links(file: str, target: str) -> Build:
    """Replace a file by a link."""

    def build(folder: Path, canary: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(target)

    return build


def fifo(file: str) -> Build:
    """Replace a file by a FIFO, whose reader waits."""

    def build(folder: Path, canary: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.mkfifo(folder / file)

    return build


def sparse(file: str, size: int) -> Build:
    """Replace a file by one of `size` zeros that takes no room on the disk."""

    def build(folder: Path, canary: Path) -> None:
        with (folder / file).open("wb") as stream:
            stream.truncate(size)

    return build


def cut(file: str, share: float = 0.5) -> Build:
    """Keep the first part of a file."""

    def build(folder: Path, canary: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: int(len(content) * share)])

    return build


def pickled(file: str, *, instead: bool = True) -> Build:
    """Weights as a pickle with code."""

    def build(folder: Path, canary: Path) -> None:
        if instead:
            for weights in folder.glob("*.safetensors"):
                weights.unlink()
        (folder / file).write_bytes(pickle.dumps(Bomb(canary)))

    return build


def torch_file(file: str) -> Build:
    """A file of torch with code, under another name."""

    def build(folder: Path, canary: Path) -> None:
        torch.save({"a": Bomb(canary)}, folder / file)

    return build


def code(file: str, *path: str, value: Any = "evil.Evil") -> Build:
    """A field that names code, which lies next to it."""

    def build(folder: Path, canary: Path) -> None:
        for place in (
            folder / "evil.py",
            folder / "custom_generate" / "generate.py",
            folder / "modeling_evil.py",
        ):
            place.parent.mkdir(exist_ok=True)
            place.write_text(f"open({str(canary)!r}, 'w')\nclass Evil: pass\ndef generate(*a, **k): pass\n")
        sets(file, *path, to=value)(folder, canary)

    return build


def escapes(template: str) -> Build:
    """A chat template that tries to leave its sandbox; CANARY in it is the canary's path."""
    return lambda folder, canary: (folder / "chat_template.jinja").write_text(
        template.replace("CANARY", str(canary))
    )


def index(shard: str) -> Build:
    """An index that names a pickle, or a file elsewhere."""

    def build(folder: Path, canary: Path) -> None:
        names = list(load_file(folder / WEIGHTS))
        (folder / WEIGHTS).unlink()
        (folder / "w.bin").write_bytes(pickle.dumps(Bomb(canary)))
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, shard)}))

    return build


def weights(file: str, change: Callable[[str, Any], Any]) -> Build:
    """Change every tensor of a file."""

    def build(folder: Path, canary: Path) -> None:
        made = {name: change(name, tensor) for name, tensor in load_file(folder / file).items()}
        save_file(made, folder / file, {"format": "pt"})

    return build


MAPPED = {"AutoConfig": "evil.Evil", "AutoModelForImageTextToText": "evil.Evil", "AutoProcessor": "evil.Evil"}
NUMBERS = [
    ("config.json", ("text_config", "num_hidden_layers"), HUGE), ("config.json", ("vision_config", "num_hidden_layers"), HUGE),
    ("config.json", ("text_config", "num_hidden_layers"), -1), ("config.json", ("vision_config", "num_hidden_layers"), 0),
    ("config.json", ("num_labels",), HUGE), ("config.json", ("text_config", "num_labels"), HUGE),
    ("config.json", ("image_seq_length",), HUGE), ("config.json", ("text_config", "vocab_size"), 10**12),
    ("config.json", ("text_config", "hidden_size"), HUGE), ("config.json", ("text_config", "intermediate_size"), HUGE),
    ("config.json", ("vision_config", "image_size"), HUGE), ("config.json", ("vision_config", "patch_size"), 0),
    ("config.json", ("vision_config", "num_attention_heads"), 0), ("config.json", ("text_config", "max_position_embeddings"), 10**12),
    ("config.json", ("vision_feature_layer",), list(range(10**5))), ("config.json", ("vision_feature_layer",), 10**18),
    ("config.json", ("vision_feature_layer",), "-2"), ("config.json", ("image_token_index",), HUGE),
    ("config.json", ("text_config",), "x"), ("config.json", ("vision_config",), []), ("config.json", ("model_type",), ["llava"]),
    ("config.json", ("text_config", "model_type"), "../evil"), ("config.json", ("dtype",), "os.system"),
    ("config.json", ("quantization_config",), {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    ("config.json", ("_attn_implementation",), "evil/kernel"),
    ("processor_config.json", ("num_additional_image_tokens",), HUGE), ("processor_config.json", ("patch_size",), 0),
    ("processor_config.json", ("image_processor", "size"), {"height": 10**5, "width": 10**5}),
    ("processor_config.json", ("image_processor", "crop_size"), {"height": HUGE, "width": HUGE}),
    ("processor_config.json", ("image_processor", "image_mean"), [float("nan")]),
    ("generation_config.json", ("eos_token_id",), list(range(10**5))), ("generation_config.json", ("eos_token_id",), "x"),
    ("tokenizer_config.json", ("chat_template",), [{"name": "default", "template": LOOPS}]), ("tokenizer_config.json", ("model_max_length",), -1),
    ("tokenizer.json", ("normalizer",), {"type": "Replace", "pattern": {"String": "a"}, "content": "b" * 2_000_000}),
    ("tokenizer.json", ("normalizer",), {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    ("tokenizer.json", ("pre_tokenizer",), {"type": "Split", "pattern": {"Regex": "(a+)+!!"}, "behavior": "Isolated", "invert": False}),
    ("tokenizer.json", ("model",), {"type": "WordLevel", "vocab": {}, "unk_token": "x"}), ("tokenizer.json", ("model", "vocab"), {"a": 2**40}),
]  # fmt: skip
CHECKPOINTS: dict[str, Build] = {
    **{f"{file} {'.'.join(path)} {str(to)[:20]}": sets(file, *path, to=to) for file, path, to in NUMBERS},
    **{f"auto_map in {file}": code(file, "auto_map", value=MAPPED)
       for file in ("config.json", "processor_config.json", "tokenizer_config.json")},
    "auto_map inside": code("config.json", "text_config", "auto_map", value=MAPPED),
    "processor_class": code("processor_config.json", "processor_class"), "architectures": code("config.json", "architectures", value=["evil.Evil"]),
    "tokenizer_class": code("tokenizer_config.json", "tokenizer_class"), "custom_generate": code("generation_config.json", "custom_generate", value="."),
    "pickle alone": pickled("pytorch_model.bin"), "pickle as safetensors": pickled(WEIGHTS), "torch file as safetensors": torch_file(WEIGHTS),
    "pickle next to the weights": pickled("pytorch_model.bin", instead=False), "index of a pickle": index("w.bin"), "index outside": index("../w.safetensors"),
    **{f"template {name}": writes("chat_template.jinja", text) for name, text in TEMPLATES.items()},
    "template 50 MB": writes("chat_template.jinja", "{{ messages[0].content }}" * 2_000_000),
    "template deep": writes("chat_template.jinja", "{% if 1 %}" * 5000 + "{% endif %}" * 5000),
    "template globals": escapes("{{ cycler.__init__.__globals__.os.system('touch CANARY') }}"),
    "template classes": escapes("{{ ''.__class__.__mro__[1].__subclasses__() }}{% include 'CANARY' %}"),
    "config endless": links("config.json", "/dev/zero"), "config sparse": sparse("config.json", 8 * 2**30),
    "config deep": writes("config.json", '{"a":' * 10**5 + "1" + "}" * 10**5), "config of digits": writes("config.json", '{"a": ' + "9" * 10**5 + "}"),
    "processor sparse": sparse("processor_config.json", 8 * 2**30), "processor is a list": writes("processor_config.json", "[[]]"),
    "weights FIFO": fifo(WEIGHTS), "other weights FIFO": fifo("z.safetensors"), "tokenizer FIFO": fifo("tokenizer.json"),
    "tokenizer in a circle": links("tokenizer.json", "tokenizer.json"), "tokenizer deep": writes("tokenizer.json", '{"a":' * 10**5),
    "weights cut": cut(WEIGHTS), "weights sparse": sparse(WEIGHTS, 8 * 2**30), "header of 2^63": writes(WEIGHTS, struct.pack("<Q", 2**63) + b"{}"),
    "header of 90 MB": writes(WEIGHTS, struct.pack("<Q", 90 * 2**20) + b'{"a":' + b" " * (90 * 2**20 - 6) + b"}"),
    "weights NaN": weights(WEIGHTS, lambda name, tensor: tensor * np.float32("nan")),
    "weights of other shapes": weights(WEIGHTS, lambda name, tensor: tensor.reshape(-1)),
}  # fmt: skip

_FIELDS = next(
    mark
    for mark in test_adapter_config.test_everything_else_is_refused_in_a_sentence_in_time_and_memory.pytestmark
).args[1]
ADAPTERS: dict[str, Build] = {
    **{f"{at} {next(iter(fields))}": (lambda folder, canary, fields=fields: [sets("adapter_config.json", name, to=value)(folder, canary) for name, value in fields.items()])
       for at, fields in enumerate(_FIELDS)},
    "Megatron names a module here": code("adapter_config.json", "megatron_core", value="evil"),
    "auto_mapping": code("adapter_config.json", "auto_mapping", value={"base_model_class": "Evil", "parent_library": "evil"}),
    "pickle alone": pickled("adapter_model.bin"), "pickle as safetensors": pickled(ADAPTER), "weights cut": cut(ADAPTER),
    "weights FIFO": fifo(ADAPTER), "weights sparse": sparse(ADAPTER, 8 * 2**30), "config sparse": sparse("adapter_config.json", 8 * 2**30),
    "weights NaN": weights(ADAPTER, lambda name, tensor: tensor * np.float32("nan")),
    "weights of other shapes": weights(ADAPTER, lambda name, tensor: np.concatenate([tensor, tensor], 1)),
    "record sparse": sparse("training.json", 8 * 2**30), "record is odd": writes("training.json", '{"identity": {"files": []}, "reward": 1}'),
}  # fmt: skip
