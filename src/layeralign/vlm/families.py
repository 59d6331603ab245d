"""Which class serves which `model_type`: layeralign's own families, then those that other packages bring."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Any

from layeralign.errors import LayeralignError
from layeralign.text import printable
from layeralign.vlm.gemma import Gemma3, PaliGemma
from layeralign.vlm.generic import Generic
from layeralign.vlm.idefics import Idefics3, SmolVlm
from layeralign.vlm.internvl import InternVL
from layeralign.vlm.llava import Llava, LlavaNext, LlavaOnevision
from layeralign.vlm.mllama import Mllama
from layeralign.vlm.qwen import Qwen3Vl, Qwen25Vl
from layeralign.vlm.vlm import Vlm

OWN = (
    Llava, LlavaNext, Mllama, LlavaOnevision, InternVL, PaliGemma, Gemma3, Idefics3, SmolVlm,
    Qwen25Vl, Qwen3Vl,
)  # fmt: skip
"""The families that ship with layeralign."""

ENTRY_POINT = "layeralign.families"
"""The entry points through which other packages bring families: `Vlm` subclasses."""


@cache
def families() -> dict[str, type[Vlm]]:
    """`model_type` -> the class that serves it.

    Raises:
        LayeralignError: another package's family cannot be used.
    """
    found: dict[str, type[Vlm]] = {family.family: family for family in OWN}
    for point in entry_points(group=ENTRY_POINT):
        try:
            family = point.load()
        except Exception as error:  # another package's code
            reason = printable(str(error), 200) or type(error).__name__
            raise LayeralignError(f"family {point.value}: cannot be loaded ({reason})") from error
        if not (isinstance(family, type) and issubclass(family, Vlm) and hasattr(family, "variants")):
            raise LayeralignError(f"family {point.value}: expected a subclass of layeralign.vlm.vlm.Vlm")
        if family.family in found:
            raise LayeralignError(f"family {point.value}: {family.family!r} is served already")
        found[family.family] = family
    return found


def family_of(name: str, config: dict[str, Any]) -> type[Vlm]:
    """The class that serves a checkpoint with this config.

    Raises:
        LayeralignError: it is no vision-language model.
    """
    kind = config.get("model_type")
    if kind in families():
        return families()[str(kind)]
    if "vision_config" not in config:
        raise LayeralignError(
            f"model {name}: is no vision-language model (config.json has model_type {kind!r} and "
            f"no vision_config); expected one of the families {', '.join(sorted(families()))}, "
            "or one like LLaVA"
        )
    return Generic
