"""Idefics3 and SmolVLM: tiles through SigLIP, then pixel shuffle and one linear layer."""

from __future__ import annotations

from typing import ClassVar

from layeralign.vlm.vlm import Vlm


class Idefics3(Vlm):
    """Idefics3."""

    family = "idefics3"
    lead_alone = True
    unit = "tile (the number of tiles depends on the picture's size)"
    variants: ClassVar = {"norm": "for every tile blocks 1..l, post-norm, connector (pixel shuffle, linear)"}


class SmolVlm(Idefics3):
    """SmolVLM and SmolVLM2."""

    family = "smolvlm"
