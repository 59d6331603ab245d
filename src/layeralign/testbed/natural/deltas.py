"""What training changed: the projector, and a low-rank change of each of the language model's matrices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from layeralign._util.files import atomic, saving
from layeralign.errors import LayeralignError

FILE = "deltas.safetensors"
SHIPPED = Path(__file__).parent / FILE
TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""The language model's linear layers, for PEFT."""
_LORA = re.compile(r"base_model\.model\.(?P<at>.+)\.lora_(?P<part>[AB])\.default\.weight")
_PROJECTOR = "model.multi_modal_projector."


def is_trained(name: str) -> bool:
    """Whether a tensor of the model with PEFT's LoRA may be changed by training."""
    return _LORA.fullmatch(name) is not None or _PROJECTOR in name


def taken(trained: PeftModel) -> dict[str, Tensor]:
    """The changes, bfloat16: `NAME.A` [rank, in] and `NAME.B` [out, rank], and the projector's tensors.

    PEFT's scale is 1, so the change of a matrix is B @ A.
    """
    found = {}
    for name, value in trained.state_dict().items():
        lora = _LORA.fullmatch(name)
        if lora:
            found[f"{lora['at']}.{lora['part']}"] = value
        elif _PROJECTOR in name:
            found[name.removeprefix("base_model.model.")] = value
    return {name: value.detach().to(torch.bfloat16).contiguous() for name, value in found.items()}


def write(changes: Mapping[str, Tensor], file: Path, about: Mapping[str, str]) -> None:
    """Write changes and their metadata as safetensors."""
    with atomic(file) as draft, saving(f"out {file}:"):
        save_file(dict(changes), draft, metadata=dict(about))


def digest(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of float32 tensors and their names."""
    found = sha256()
    for name, value in sorted(tensors.items()):
        found.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def restore(weights: Mapping[str, Tensor], file: Path) -> None:
    """Copy the trained tensors in a file into a model's weights.

    Raises:
        LayeralignError: The file cannot be read, does not hold these tensors, or others than were written.
    """
    try:
        found = load_file(file)
        with safe_open(file, framework="pt") as opened:
            about = opened.metadata() or {}
    except Exception as error:  # safetensors raises types of its own
        raise LayeralignError(f"{file}: cannot be read ({error}); delete it, and repeat the build") from error
    shapes = {name: value.shape for name, value in weights.items() if is_trained(name)}
    named = {name: value.shape for name, value in found.items()}
    if named != shapes or about.get("sha256") != digest(found):
        raise LayeralignError(f"{file}: is no stage of this build; delete it, and repeat the build")
    with torch.no_grad():
        for name, value in found.items():
            weights[name].copy_(value)


def apply(model: LlavaForConditionalGeneration, file: Path) -> None:
    """Add the changes in a file to an assembled model's weights, in float32.

    Raises:
        LayeralignError: A change does not fit the model.
    """
    changes, weights = load_file(file), model.state_dict()
    with torch.no_grad():
        for name, change in changes.items():
            at, _, part = name.rpartition(".")
            if part == "B":
                continue
            target = weights.get(f"{at}.weight" if part == "A" else name)
            new = changes[f"{at}.B"].float() @ change.float() if part == "A" else change.float()
            if target is None or target.shape != new.shape:
                raise LayeralignError(
                    f"{file}: {name} does not fit the model; expected the natural testbed's"
                )
            target.copy_(target + new if part == "A" else new)
