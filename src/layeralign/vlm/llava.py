"""LLaVA-1.5 and its kin: CLIP or SigLIP tower, two-layer projector, any causal language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from layeralign.errors import LayeralignError
from layeralign.vlm import tower
from layeralign.vlm.exits import Exits
from layeralign.vlm.vlm import Vlm


class Llava(Vlm):
    """`LlavaForConditionalGeneration`."""

    family: ClassVar[str] = "llava"
    variant: ClassVar[str] = "blocks 1..l, class token as configured, no post-norm, projector"

    @property
    def exits(self) -> Exits:
        """Exits 0 to L; the default is the config's `vision_feature_layer`."""
        layer = self.model.config.vision_feature_layer
        if not isinstance(layer, int) or isinstance(layer, bool):
            raise LayeralignError(
                f"model {self.checkpoint.name}: vision_feature_layer is {layer!r}; expected one "
                "whole number (models that join several layers are not supported)"
            )
        layers = len(self._blocks)
        return Exits(layers, Exits(layers, layers).resolve(layer))

    @property
    def _blocks(self) -> nn.ModuleList:
        encoder = getattr(self.model.model.vision_tower, "encoder", None)
        blocks = getattr(encoder, "layers", None)
        if not isinstance(blocks, nn.ModuleList):
            kind = type(self.model.model.vision_tower).__name__
            raise LayeralignError(
                f"model {self.checkpoint.name}: its vision tower ({kind}) has no encoder.layers to exit from"
            )
        return blocks

    @property
    def picture_token(self) -> str:
        """The processor's picture placeholder."""
        return str(self.processor.image_token)

    @torch.no_grad()
    def encode(self, pictures: Sequence[Image.Image], exits: Sequence[int]) -> dict[int, list[Tensor]]:
        """See `Vlm.encode`; the class token is dropped where the config says so."""
        made = self.processor.image_processor(images=list(pictures), return_tensors="pt")
        vision = self.model.model.vision_tower
        pixels = made["pixel_values"].to(vision.device, vision.dtype)
        states = tower.hidden_states(vision, self._blocks, exits, pixel_values=pixels)
        drop = self.model.config.vision_feature_select_strategy == "default"
        project = self.model.model.multi_modal_projector
        return {exit: list(project(state[:, 1:] if drop else state)) for exit, state in states.items()}

    def tokens(self, prompt: str, picture_tokens: int | None) -> list[int]:
        """See `Vlm.tokens`; exactly one BOS, whether the template or the tokenizer writes it."""
        names = self.tokenizer
        text = prompt.replace(self.picture_token, self.picture_token * (picture_tokens or 1))
        templated = bool(names.bos_token) and text.startswith(names.bos_token)
        return list(names(text, add_special_tokens=not templated)["input_ids"])

    @property
    def language_modules(self) -> str:
        """See `Vlm.language_modules`; the tower has a `q_proj`, too, so the language model is named."""
        return r"model\.language_model\..*\.(q|k|v|o|gate|up|down)_proj"

    def hidden(self, ids: Tensor, places: Tensor, features: Tensor) -> Tensor:
        """See `Vlm.hidden`."""
        embeds = self.model.get_input_embeddings()(torch.where(places, self.pad_token, ids))
        embeds = embeds.masked_scatter(places[..., None], features.to(embeds))
        found: Tensor = self.model.model.language_model(inputs_embeds=embeds, use_cache=False)[0]
        return found

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Vlm.logits`."""
        found: Tensor = self.model.lm_head(hidden)
        return found

    @torch.no_grad()
    def generate(
        self, ids: Sequence[Sequence[int]], features: Sequence[Tensor | None], **settings: Any
    ) -> Tensor:
        """See `Vlm.generate`; features are put in by transformers' own forward."""
        width = max(map(len, ids))
        tokens = torch.full((len(ids), width), self.pad_token, device=self.device)
        mask = torch.zeros_like(tokens)
        for row, line in enumerate(ids):
            tokens[row, width - len(line) :] = torch.tensor(line)
            mask[row, width - len(line) :] = 1
        seen = [feature for feature in features if feature is not None]
        if seen:
            given: Any = seen  # declared as one tensor, read as a list of them
            settings["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=given)}
        made: Tensor = self.model.generate(
            input_ids=tokens, attention_mask=mask, pad_token_id=self.pad_token, **settings
        )
        return made[:, width:]
