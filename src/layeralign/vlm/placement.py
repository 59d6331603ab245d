"""Where the parts of a model are: the language model on disk, or quantised, and the others as they are."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from layeralign.errors import LayeralignError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import BitsAndBytesConfig

    from layeralign.vlm.vlm import Vlm


def language_model_on_disk(vlm: Vlm, device: str) -> dict[str, str]:
    """A `device_map` with the encoder and the projector on a device, and all else in its files.

    The language model can still be run: each of its layers is read from the disk when it is computed.

    Args:
        vlm: The model without weights, from `layeralign.vlm.load.empty`.
        device: Torch device of the encoder and the projector.

    Returns:
        Name of a module or parameter -> `device` or `disk`, for every part of the model.
    """
    far = {vlm.path_of(module) for module in (*vlm.language_parts, vlm.model.get_output_embeddings())}
    outer = {name[:at] for name in far for at, letter in enumerate(name) if letter == "."} | {""}
    placed: dict[str, str] = {}
    for name, module in vlm.model.named_modules():
        if name in outer:
            own = (part for part, _ in module.named_parameters(recurse=False))
            placed |= {f"{name}.{part}".lstrip("."): device for part in own}
        elif name.rpartition(".")[0] in outer:
            placed[name] = "disk" if name in far else device
    return placed


def beside_the_language_model(vlm: Vlm) -> list[str]:
    """The modules that are never quantised: all that are not inside the language model.

    Returns:
        Patterns that transformers matches from the start of a module's full name.
    """
    inner = {vlm.path_of(part) for part in vlm.language_parts}
    outer = {name[:at] for name in inner for at, letter in enumerate(name) if letter == "."} | {""}
    parents = ((name, name.rpartition(".")[0]) for name, _ in vlm.model.named_modules() if name)
    return [re.escape(name) for name, parent in parents if parent in outer and name not in outer | inner]


def keep_here(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put an adapter's weights next to base weights that are on disk; PEFT moves them where those are.

    Args:
        model: A model with the adapter, not merged.
        weights: The adapter's weights, by the names in its file.

    Raises:
        ValueError: It has weights of the model itself, whose place is the disk.
    """
    from torch import nn

    if whole := [name for name in weights if ".lora_" not in name]:
        raise ValueError(f"{whole[0]} is a weight of the model itself; merge it before the scan")
    for name, weight in weights.items():
        path = name.removeprefix("base_model.model.").removesuffix(".weight")
        module = model.get_submodule(f"{path}.default")
        if module.weight.is_meta:
            module.weight = nn.Parameter(weight, requires_grad=False)


def check_quantize(quantize: str) -> None:
    """Check that weights can be quantised so on this machine.

    Raises:
        LayeralignError: they cannot.
    """
    import torch

    if quantize not in ("4bit", "8bit"):
        raise LayeralignError(f"quantize {quantize!r}: expected 4bit or 8bit")
    if not torch.cuda.is_available():
        raise LayeralignError(f"quantize {quantize}: needs a CUDA GPU, but none is available; remove it")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise LayeralignError(f"quantize {quantize}: needs bitsandbytes; pip install bitsandbytes")


def quantization(quantize: str, dtype: torch.dtype, exact: list[str]) -> BitsAndBytesConfig:
    """Quantisation of the language model only: the encoder, whose exits are measured, stays exact."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=quantize == "4bit", load_in_8bit=quantize == "8bit", bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_type="nf4", llm_int8_skip_modules=exact,
    )  # fmt: skip
