"""Qwen2.5-VL to Qwen3.6 and GLM-4.1V to 4.6V: any number of patches per row, a merger, 3D positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm


class Qwen25Vl(Vlm):
    """Qwen2.5-VL."""

    family = "qwen2_5_vl"
    variants: ClassVar = {
        "merger": "blocks 1..l, merger (norm, 2 × 2 patches to a token), window order undone"
    }
    blocks_at = "blocks"
    unit = "picture of 448 × 448"

    def sample(self) -> dict[str, Tensor]:
        """See `Vlm.sample`."""
        config = self.tower.config
        side = self._side
        width = config.in_channels * config.temporal_patch_size * config.patch_size**2
        return {"hidden_states": torch.zeros(side**2, width), "grid_thw": torch.tensor([[1, side, side]])}

    @property
    def _side(self) -> int:
        """Patches along a side of `sample`."""
        config = self.tower.config
        return int(448 // config.patch_size // config.spatial_merge_size * config.spatial_merge_size)

    @property
    def states(self) -> int:
        """See `Vlm.states`."""
        return self._side**2

    def span(self, block: int, states: int) -> int:
        """See `Vlm.span`; Qwen2.5-VL has windows in most blocks."""
        config = self.tower.config
        if block in getattr(config, "fullatt_block_indexes", [block]):
            return states
        return min(states, int(config.window_size // config.patch_size) ** 2)

    def extras(self, output: Any, inputs: Mapping[str, Any], n: int, exit: int) -> list[dict[str, Tensor]]:
        """See `Vlm.extras`: `grid`, int64 [1, 3], from which positions are computed."""
        return [{"grid": grid[None]} for grid in inputs["image_grid_thw"]]

    def inputs(self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None]) -> dict[str, Any]:
        """See `Vlm.inputs`."""
        given = super().inputs(ids, prompt, features)
        if not given:
            return given
        grids = [feature.extras["grid"] for feature in features if feature is not None]
        pictures = (ids == self.picture_token_id) & prompt
        return given | {
            "image_grid_thw": torch.cat(grids).to(ids.device),
            "mm_token_type_ids": pictures.int(),
        }

    def image_embeds(self, feature: Feature) -> dict[str, Tensor]:
        """See `Vlm.image_embeds`; positions are computed from the grid."""
        return {"image_embeds": feature.tokens, "image_grid_thw": feature.extras["grid"][0]}

    def position_offset(self, feature: Feature | None) -> int:
        """See `Vlm.position_offset`; a picture takes as many positions as its longer side has tokens."""
        if feature is None:
            return 0
        _, height, width = (int(n) for n in feature.extras["grid"][0])
        return max(height, width) // int(self.tower.spatial_merge_size) - len(feature.tokens)


class Qwen3Vl(Qwen25Vl):
    """Qwen3-VL, whose language model also reads states from inside the encoder (deepstack)."""

    family = "qwen3_vl"
    variants: ClassVar = {
        "drop": "blocks 1..l, merger; deepstack features from past the exit are zero, as where the runtime "
        "never computes them",
        "hold": "blocks 1..l, merger; deepstack features from past the exit are made of the exit's state",
    }

    @property
    def reads_cut(self) -> bool:
        """See `Vlm.reads_cut`; transformers adds no deepstack features of missing blocks."""
        return self.reading == "drop"

    @property
    def captured_layers(self) -> tuple[int, ...]:
        """See `Vlm.captured_layers`; a deepstack index means the output of that block, from 0."""
        return tuple(index + 1 for index in self.tower.deepstack_visual_indexes)

    def unused_parts(self, exit: int) -> list[nn.Module]:
        """See `Vlm.unused_parts`; the mergers of dropped features are not needed, either."""
        mergers = list(zip(self.captured_layers, self.tower.deepstack_merger_list, strict=True))
        dropped = [merger for tap, merger in mergers if tap > exit and self.reading == "drop"]
        return super().unused_parts(exit) + dropped

    def extras(self, output: Any, inputs: Mapping[str, Any], n: int, exit: int) -> list[dict[str, Tensor]]:
        """See `Vlm.extras`: also `deepstack`, [taps, picture tokens, text width]."""
        grids = super().extras(output, inputs, n, exit)
        kept = torch.tensor([self.reading == "hold" or tap <= exit for tap in self.captured_layers])
        found = []
        for number, grid in enumerate(grids):
            stacked = torch.stack([layer[number] for layer in output.deepstack_features])
            found.append(grid | {"deepstack": stacked * kept.to(stacked)[:, None, None]})
        return found

    def inputs(self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None]) -> dict[str, Any]:
        """See `Vlm.inputs`."""
        given = super().inputs(ids, prompt, features)
        if given:
            stacks = [feature.extras["deepstack"] for feature in features if feature is not None]
            layers: Any = [list(layer) for layer in zip(*stacks, strict=True)]  # declared as one list
            given["mm_encoder_outputs"]["image"] = BaseModelOutputWithDeepstackFeatures(
                pooler_output=given["mm_encoder_outputs"]["image"].pooler_output, deepstack_features=layers
            )
        return given

    def image_embeds(self, feature: Feature) -> dict[str, Tensor]:
        """See `Vlm.image_embeds`; vLLM reads the deepstack features behind the others, in each row."""
        joined = torch.cat([feature.tokens, *feature.extras["deepstack"]], dim=1)
        return super().image_embeds(feature) | {"image_embeds": joined}


class Qwen3VlMoe(Qwen3Vl):
    """Qwen3-VL with a mixture of experts."""

    family = "qwen3_vl_moe"


class Qwen35(Qwen25Vl):
    """Qwen3.5 and Qwen3.6, without deepstack; most layers of the language model are linear attention.

    A linear layer's cache is one state of the whole text. It cannot be padded, copied in part or continued
    like keys and values, so `generate` answers.
    """

    family = "qwen3_5"
    variants: ClassVar = {"merger": "blocks 1..l, merger (norm, 2 × 2 patches to a token)"}
    streams = False


class Qwen35Moe(Qwen35):
    """Qwen3.5 and Qwen3.6 with a mixture of experts."""

    family = "qwen3_5_moe"


class Glm4v(Qwen25Vl):
    """GLM-4.1V."""

    family = "glm4v"
    variants: ClassVar = {"norm": "blocks 1..l, post-norm, downsampling (2 × 2 patches to a token), merger"}


class Glm4vMoe(Glm4v):
    """GLM-4.5V, with a mixture of experts."""

    family = "glm4v_moe"


class Glm46v(Glm4v):
    """GLM-4.6V."""

    family = "glm46v"
