"""PaliGemma, Gemma 3 and Gemma 4: bidirectional attention in prompts or pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from layeralign.vlm.feature import Feature
from layeralign.vlm.text import template
from layeralign.vlm.vlm import Vlm


class _Capped(Vlm):
    def logits(self, hidden: Tensor) -> Tensor:
        """See `Vlm.logits`; PaliGemma 2 and Gemma 4 cap them."""
        found = super().logits(hidden)
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        return found if cap is None else cap * torch.tanh(found / cap)


class PaliGemma(_Capped):
    """PaliGemma and PaliGemma 2, which have no chat template; the prompt is that of their processor."""

    family = "paligemma"
    variants: ClassVar = {"norm": "blocks 1..l, post-norm, projector"}
    one_tensor = True
    exits_together = True
    reads_ahead = True
    replaces_picture_token = True

    def prompt(self, text: str, *, picture: bool, system: str = "", date: str = "") -> str:
        """See `Vlm.prompt`; the format of `PaliGemmaProcessor`, which has no system turn."""
        template.refuse_system(self.checkpoint.name, system)
        return f"{self.placeholder if picture else ''}{self.tokenizer.bos_token}{text}\n"

    def own_inputs(self, prompt: str, picture: Image.Image, ids: Sequence[int]) -> dict[str, Any] | None:
        """See `Vlm.own_inputs`; the processor itself adds the placeholder, BOS and line break."""
        text = prompt.removeprefix(f"{self.placeholder}{self.tokenizer.bos_token}").removesuffix("\n")
        return super().own_inputs(text, picture, ids)

    def inputs(self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None]) -> dict[str, Any]:
        """See `Vlm.inputs`; attention is bidirectional in the prompt and causal in the answer."""
        return super().inputs(ids, prompt, features) | {"token_type_ids": (~prompt).long()}

    def position_offset(self, feature: Feature | None) -> int:
        """See `Vlm.position_offset`; PaliGemma counts from 1."""
        return 1


class Gemma3(Vlm):
    """Gemma 3 with pictures."""

    family = "gemma3"
    variants: ClassVar = {"norm": "blocks 1..l, post-norm, pooling, norm, projection"}
    one_tensor = True
    exits_together = True
    replaces_picture_token = True

    def inputs(self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None]) -> dict[str, Any]:
        """See `Vlm.inputs`; attention is bidirectional within a picture."""
        pictures = (ids == self.picture_token_id) & prompt
        return super().inputs(ids, prompt, features) | {"token_type_ids": pictures.long()}


class Gemma4(_Capped):
    """Gemma 4 with an encoder (E2B, E4B, 26B-A4B, 31B)."""

    family = "gemma4"
    variants: ClassVar = {"pool": "blocks 1..l, pooling (3 × 3 patches to a token), norm, projection"}
    unit = "picture of 16 × 16 tokens"
    replaces_picture_token = True

    def sample(self) -> dict[str, Tensor]:
        """See `Vlm.sample`."""
        config, side = self.tower.config, int(self.states**0.5)
        at = torch.arange(side * side)
        return {
            "pixel_values": torch.zeros(1, side * side, 3 * config.patch_size**2),
            "pixel_position_ids": torch.stack([at % side, at // side], -1)[None],
        }

    @property
    def states(self) -> int:
        """See `Vlm.states`."""
        return (16 * int(self.tower.config.pooling_kernel_size)) ** 2

    def inputs(self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None]) -> dict[str, Any]:
        """See `Vlm.inputs`; in some sizes, attention is bidirectional within a picture."""
        pictures = (ids == self.picture_token_id) & prompt
        return super().inputs(ids, prompt, features) | {"mm_token_type_ids": pictures.int()}
