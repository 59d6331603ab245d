"""LLaVA-1.5, -NeXT, -OneVision, Mistral 3 and InternVL: the config names the layer that is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from PIL import Image

from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm


class Llava(Vlm):
    """LLaVA-1.5 and similar models: CLIP or SigLIP tower, two-layer projector, causal language model."""

    family = "llava"
    reads_plainly = True
    variants: ClassVar = {"blocks": "blocks 1..l, class token as configured, no post-norm, projector"}
    exits_together = True
    lead_alone = True


class LlavaNext(Llava):
    """LLaVA-NeXT (1.6): any resolution; the picture and its tiles each go through the tower."""

    family = "llava_next"
    exits_together = False  # tiles are packed by the pictures' sizes
    unit = "tile (a picture has 1 or more, depending on its size)"
    variants: ClassVar = {
        "blocks": "for every tile blocks 1..l, class token as configured, no post-norm, projector; then the "
        "tiles packed, with newline tokens"
    }


class LlavaOnevision(LlavaNext):
    """LLaVA-OneVision: SigLIP, any resolution."""

    family = "llava_onevision"
    variants: ClassVar = {
        "blocks": "for every tile blocks 1..l, no post-norm, projector; then the tiles packed and pooled, "
        "with newline tokens"
    }


class Mistral3(Vlm):
    """Mistral 3 (Small 3.1 and later): Pixtral reads pictures of any size, packed into one row."""

    family = "mistral3"
    variants: ClassVar = {"norm": "blocks 1..l, norm, merger (2 × 2 patches to a token), projector"}
    blocks_at = "transformer.layers"
    unit = "picture of the largest size"
    lead_alone = True

    def _encode(self, pictures: Sequence[Image.Image], exits: Sequence[int]) -> dict[int, list[Feature]]:
        """See `Vlm.encode`; transformers fails on a single token, so such a picture goes with its double."""
        alone = len(pictures) == 1 and self.picture_text(pictures[0]).count(self.picture_token) == 1
        made = super()._encode([*pictures, *pictures] if alone else pictures, exits)
        return {exit: features[: len(pictures)] for exit, features in made.items()}


class InternVL(Vlm):
    """InternVL 2.5 to 3.5 in transformers' format."""

    family = "internvl"
    lead_alone = True
    unit = "tile (the number of tiles depends on the picture's shape)"
    variants: ClassVar = {
        "blocks": "for every tile blocks 1..l, the tower's final norm where the config reads its last layer, "
        "no class token, pixel shuffle, projector"
    }
    blocks_at = "encoder.layer"
    one_tensor = True
