"""PaliGemma and Gemma 3: SigLIP with post-norm, and bidirectional attention in prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from layeralign.errors import LayeralignError
from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm


class PaliGemma(Vlm):
    """PaliGemma and PaliGemma 2, which have no chat template; the prompt is that of their processor."""

    family = "paligemma"
    variants: ClassVar = {"norm": "blocks 1..l, post-norm, projector"}
    one_tensor = True
    exits_together = True
    reads_ahead = True
    replaces_picture_token = True

    def prompt(self, text: str, *, picture: bool, system: str = "", date: str = "") -> str:
        """See `Vlm.prompt`; the format of `PaliGemmaProcessor`, which has no system turn."""
        if system:
            raise LayeralignError(
                f"model {self.checkpoint.name}: PaliGemma does not support a system prompt; remove it"
            )
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

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Vlm.logits`; PaliGemma 2 caps them."""
        found = super().logits(hidden)
        cap = getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)
        return found if cap is None else cap * torch.tanh(found / cap)


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
