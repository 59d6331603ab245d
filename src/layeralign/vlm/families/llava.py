"""LLaVA-1.5, LLaVA-NeXT and LLaVA-OneVision: the config names the layer at which the tower is read."""

from __future__ import annotations

from typing import ClassVar

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
