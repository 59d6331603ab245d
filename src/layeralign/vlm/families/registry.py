"""Registry of families by `model_type`: layeralign's own, then those of other packages."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.vlm.families.apart import Kosmos2, Kosmos25
from layeralign.vlm.families.blip import Blip, Blip2, InstructBlip
from layeralign.vlm.families.gemma import Gemma3, Gemma4, PaliGemma
from layeralign.vlm.families.generic import Generic
from layeralign.vlm.families.idefics import Idefics, Idefics2, Idefics3, SmolVlm
from layeralign.vlm.families.joined import Granite4Vision, Molmo2, VipLlava
from layeralign.vlm.families.llama4 import Llama4
from layeralign.vlm.families.llava import InternVL, Llava, LlavaNext, LlavaOnevision, Mistral3
from layeralign.vlm.families.mllama import Mllama
from layeralign.vlm.families.qwen import (
    Glm4v,
    Glm4vMoe,
    Glm46v,
    Qwen3Vl,
    Qwen3VlMoe,
    Qwen25Vl,
    Qwen35,
    Qwen35Moe,
)
from layeralign.vlm.vlm import Vlm

OWN = (
    Llava, LlavaNext, Mllama, LlavaOnevision, InternVL, PaliGemma, Gemma3, Gemma4, Idefics3, SmolVlm,
    Qwen25Vl, Qwen3Vl, Qwen3VlMoe, Qwen35, Qwen35Moe, Mistral3, Glm4v, Glm4vMoe, Glm46v, Llama4,
    VipLlava, Granite4Vision, Molmo2, Blip2, Idefics2, Kosmos2, Kosmos25, InstructBlip, Idefics, Blip,
)  # fmt: skip
"""The families that ship with layeralign."""

NO_ENCODER = ("gemma4_unified", "fuyu")
"""Families whose language model reads a picture's patches itself."""

ENTRY_POINT = "layeralign.families"
"""Entry point group for families of other packages: `model_type` -> `Vlm` subclass."""


def family_of(name: str, config: dict[str, Any]) -> type[Vlm]:
    """The class for a checkpoint with this config: ours, another package's, or `Generic`.

    Raises:
        LayeralignError: It is not a vision-language model, or another package's family is invalid.
    """
    kind = config.get("model_type")
    if kind in NO_ENCODER:
        raise LayeralignError(
            f"model {name}: family {kind} has no image encoder, since its language model reads the picture's "
            "patches itself, so there is no exit to scan; use a model with an encoder"
        )
    own = {family.family: family for family in OWN}
    points = {point.name: point for point in entry_points(group=ENTRY_POINT)}
    if isinstance(kind, str) and kind in own:
        return own[kind]
    if isinstance(kind, str) and kind in points:
        return _theirs(points[kind])  # loads only this package's code
    if not isinstance(kind, str) or "vision_config" not in config:
        lacks = "" if "vision_config" in config else " and no vision_config"
        raise LayeralignError(
            f"model {name}: is not a vision-language model (config.json has model_type "
            f"{printable(repr(kind), 60)}{lacks}); expected one of the families "
            f"{', '.join(sorted(own | points))}, or a model like LLaVA"
        )
    return Generic


def _theirs(point: EntryPoint) -> type[Vlm]:
    try:
        family = point.load()
    except Exception as error:  # another package's code
        reason = printable(str(error), 200) or type(error).__name__
        raise LayeralignError(f"family {point.value}: cannot be loaded ({reason})") from error
    if not (isinstance(family, type) and issubclass(family, Vlm)):
        raise LayeralignError(f"family {point.value}: expected a subclass of layeralign.vlm.vlm.Vlm")
    if getattr(family, "family", None) != point.name:
        raise LayeralignError(
            f"family {point.value}: its `family` must be {point.name!r}, the name of its entry point"
        )
    variants = getattr(family, "variants", None)
    texts = [*variants, *variants.values()] if isinstance(variants, Mapping) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise LayeralignError(
            f"family {point.value}: `variants` must map at least one name to a sentence, both strings"
        )
    return family
