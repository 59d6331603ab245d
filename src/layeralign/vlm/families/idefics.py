"""Idefics3 and SmolVLM: tiles through SigLIP, pixel shuffle and one linear layer. Idefics2: a resampler."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from layeralign.vlm.families.generic import Generic
from layeralign.vlm.feature import Feature
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


class Idefics2(Generic):
    """Idefics2, whose processor does not say what stands for a picture."""

    family = "idefics2"
    variants: ClassVar = {"norm": "for every tile blocks 1..l, post-norm, connector (projection, resampler)"}

    def replacements(self, made: Any) -> list[str]:
        """See `Vlm.replacements`, without the space that goes before a word; `tokens` writes it."""
        return [text.rstrip(" ") for text in super().replacements(made)]

    def tokens(self, prompt: str, feature: Feature | None) -> list[int]:
        """See `Vlm.tokens`; as in the processor, a word does not touch the picture's last token."""
        edge = re.escape(self.processor.fake_image_token)
        spaced = re.sub(rf"({re.escape(self.placeholder)})(?=[^\s<])", r"\1 ", prompt)
        return super().tokens(re.sub(rf"({edge})(?=[^\s<])", r"\1 ", spaced), feature)
