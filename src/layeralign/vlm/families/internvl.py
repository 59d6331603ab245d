"""InternVL: tiles through InternViT, then pixel shuffle and a projector."""

from __future__ import annotations

from typing import ClassVar

from layeralign.vlm.vlm import Vlm


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
