"""A model's part of a run's identity, and the versions that computed a run."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib.metadata import version
from typing import Any

from layeralign.vlm.vlm import Vlm

_PACKAGES = ("layeralign", "torch", "transformers", "peft", "tokenizers", "safetensors", "pillow", "numpy")


def identity(vlm: Vlm) -> dict[str, Any]:
    """Everything about the model that affects an answer."""
    template = str(getattr(vlm.processor, "chat_template", None))
    # present only for a different base model, so that the identity of other runs does not change
    other = {"base": vlm.other_base} if vlm.other_base else {}
    return other | {
        "files": vlm.checkpoint.hashes,
        "revision": vlm.checkpoint.revision,
        "adapter": vlm.adapter.hashes if vlm.adapter else None,
        "family": vlm.family,
        "variant": vlm.variant,
        "quantize": vlm.quantize,
        "dtype": str(vlm.model.dtype).removeprefix("torch."),
        "template": hashlib.sha256(template.encode()).hexdigest(),
    }


def versions() -> dict[str, str]:
    """Versions of the packages and the machine that computed the answers."""
    found = {name: version(name) for name in _PACKAGES}
    return found | {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
