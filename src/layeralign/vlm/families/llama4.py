"""Llama 4: tiles through one encoder, then pixel shuffle and projector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm


class Llama4(Vlm):
    """Llama 4 Scout and Maverick.

    Transformers projects the features in the forward of the language model, so a feature has the width of the
    encoder's adapter.
    """

    family = "llama4"
    variants: ClassVar = {
        "norm": "for every tile blocks 1..l, post-norm, no class token, pixel shuffle, projector"
    }
    blocks_at = "model.layers"
    unit = "tile (the number of tiles depends on the picture's size)"
    tuples = True
    streams = False  # most layers attend within chunks, which a cache of several rows cannot place

    def processed(self, pictures: Sequence[Image.Image], by: Callable[..., Any], **settings: Any) -> Any:
        """See `Vlm.processed`; pictures may have different numbers of tiles."""
        made = super().processed(pictures, by, **settings)
        made["pixel_values"] = torch.cat(list(made["pixel_values"]))
        return made

    def features(
        self, output: Any, inputs: Mapping[str, Any], texts: Sequence[str], exit: int
    ) -> list[Feature]:
        """See `Vlm.features`."""
        output.pooler_output = output.last_hidden_state
        return super().features(output, inputs, texts, exit)

    def inputs(self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None]) -> dict[str, Any]:
        """See `Vlm.inputs`."""
        tokens = [feature.tokens for feature in features if feature is not None]
        if not tokens:
            return {}
        given = BaseModelOutputWithPooling(last_hidden_state=torch.cat(tokens))
        return {"mm_encoder_outputs": {"image": given}}
