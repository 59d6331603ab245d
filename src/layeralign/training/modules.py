"""The linear layers that an adapter acts on."""

from __future__ import annotations

import re
from typing import Literal

from torch import nn

from layeralign.errors import LayeralignError
from layeralign.vlm.vlm import Vlm

Part = Literal["language", "projector"]
"""The part of a model that an adapter acts on."""


def linear_layers(vlm: Vlm, part: Part) -> str:
    """Return a regular expression for the full names of a part's linear layers.

    Raises:
        LayeralignError: the projector has no linear layer.
    """
    return _language(vlm) if part == "language" else _projector(vlm)


def _language(vlm: Vlm) -> str:
    """Return the layers in the language model's blocks; with its name, since towers have `q_proj`, too.

    A model's own kind of linear layer is left out: it can be a router, which returns more than a tensor.
    """
    linear = {
        name.split(".")[-1]
        for part in vlm.language_parts
        for name, module in part.named_modules()
        if isinstance(module, nn.Linear) and not type(module).__module__.startswith("transformers.models.")
    }
    paths = "|".join(re.escape(vlm.path_of(part)) for part in vlm.language_parts)
    return rf"(?:{paths})\..*\.({'|'.join(sorted(linear))})"


def _projector(vlm: Vlm) -> str:
    """Return all layers outside the encoder's blocks and the language model."""
    known = {id(vlm.head)}
    for part in (*vlm.language_parts, *vlm.all_blocks):
        known |= set(map(id, part.modules()))
    names = [
        name
        for name, module in vlm.model.named_modules()
        if isinstance(module, nn.Linear) and id(module) not in known
    ]
    if not names:
        raise LayeralignError(f"model {vlm.checkpoint.name}: its projector has no linear layer to train")
    return "|".join(map(re.escape, names))
