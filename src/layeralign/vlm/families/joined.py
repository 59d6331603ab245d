"""Models that join several layers of the encoder; those past an exit are read at the exit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.models.granite4_vision.modeling_granite4_vision import Granite4VisionImageFeaturesOutput

from layeralign.exits import Exits
from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm


class VipLlava(Vlm):
    """ViP-LLaVA, which joins several layers of CLIP."""

    family = "vipllava"
    variants: ClassVar = {"capped": "blocks 1..l, no class token, no post-norm, joined, norm, projector"}
    one_tensor = True
    lead_alone = True


class Granite4Vision(Vlm):
    """Granite 4 Vision; the language model gets features in several of its layers.

    They are of the encoder's layers in `deepstack_layer_map` and of `spatial_vision_layer`.
    """

    family = "granite4_vision"
    unit = "tile (a picture has 1 or more, depending on its size)"
    variants: ClassVar = {
        "capped": "for every tile blocks 1..l, no post-norm, a projector for each layer of the language "
        "model that gets features; then the tiles packed, with newline tokens"
    }

    @property
    def _layers_read(self) -> tuple[int, ...]:
        config, layers = self.model.config, len(self.blocks)
        named = [*(layer for layer, _ in config.deepstack_layer_map), config.spatial_vision_layer]
        return tuple(Exits(layers, layers).resolve(layer) for layer in named)

    def features(
        self, output: Any, inputs: Mapping[str, Any], texts: Sequence[str], exit: int
    ) -> list[Feature]:
        """See `Vlm.features`: `tokens` are those of the first layer that gets features."""
        output.pooler_output = output.deepstack_features[0][1]
        return super().features(output, inputs, texts, exit)

    def extras(self, output: Any, inputs: Mapping[str, Any], n: int, exit: int) -> list[dict[str, Tensor]]:
        """See `Vlm.extras`: `deepstack`, [further layers, picture tokens, text width]."""
        return [
            {"deepstack": torch.stack([made[number] for _, made in output.deepstack_features[1:]])}
            for number in range(n)
        ]

    def inputs(self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None]) -> dict[str, Any]:
        """See `Vlm.inputs`."""
        seen = [feature for feature in features if feature is not None]
        if not seen:
            return {}
        config = self.model.config
        layers = [*(layer for _, layer in config.deepstack_layer_map), *config.spatial_target_layers]
        stacks = [[one.tokens, *one.extras["deepstack"]] for one in seen]
        made: Any = [(layer, list(parts)) for layer, *parts in zip(layers, *stacks, strict=True)]
        given = Granite4VisionImageFeaturesOutput(deepstack_features=made)
        return {"mm_encoder_outputs": {"image": given}}

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Vlm.logits`; Granite divides them."""
        return super().logits(hidden) / float(self.model.config.get_text_config().logits_scaling)


class Molmo2(Vlm):
    """Molmo 2, whose adapter names the layers."""

    family = "molmo2"
    unit = "crop (a picture has 1 or more, depending on its size)"
    variants: ClassVar = {"capped": "for every crop blocks 1..l, pooled by attention, projector"}
    blocks_at = "layers"

    @property
    def _layers_read(self) -> tuple[int, ...]:
        """See `Vlm._layers_read`; the config counts blocks from 0, negative numbers from the end."""
        layers = len(self.blocks)
        named = self.model.config.adapter_config.vision_feature_layer
        return tuple(Exits(layers, layers).resolve(layer + (layer >= 0)) for layer in named)

    def sample(self) -> dict[str, Tensor]:
        """See `Vlm.sample`."""
        config = self.tower.config
        width = config.num_channels * config.patch_size**2
        return {"pixel_values": torch.zeros(1, config.num_position_embeddings, width)}

    @property
    def states(self) -> int:
        """See `Vlm.states`."""
        return int(self.tower.config.num_position_embeddings)

    def prompt(self, text: str, *, picture: bool, system: str = "", date: str = "") -> str:
        """See `Vlm.prompt`; the processor writes the missing BOS, or else EOS, before the template's text."""
        made = super().prompt(text, picture=picture, system=system, date=date)
        first = self.tokenizer.bos_token or self.tokenizer.eos_token
        return made if made.startswith(first) else first + made

    def inputs(self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None]) -> dict[str, Any]:
        """See `Vlm.inputs`; attention is bidirectional within a picture, its layout tokens included."""
        layout = torch.tensor(self.processor.image_token_ids, device=ids.device)
        pictures = torch.isin(ids, layout) & prompt
        return super().inputs(ids, prompt, features) | {"mm_token_type_ids": pictures.int()}
