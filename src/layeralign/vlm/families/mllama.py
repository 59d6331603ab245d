"""Llama 3.2 Vision (mllama): two encoder stages, read by cross-attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Cache

from layeralign.errors import LayeralignError
from layeralign.exits import Exits, Track
from layeralign.vlm import tower
from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm

_CUT = (
    "local:l is local blocks 1..l, the five intermediate states clipped at l, all global blocks; "
    "global:g is all local blocks, global blocks 1..g; intermediate:l clips the intermediate states alone; "
    "then projector; intermediate state i is taken "
)


class Mllama(Vlm):
    """`MllamaForConditionalGeneration`.

    The tower's output concatenates the global blocks' output and five states of the local blocks. There are
    two readings of the config's `intermediate_layers_indices`. Meta's own code, transformers up to 4.54, vLLM
    and torchtune take the state before block i (counted from 0), as in training; transformers from 4.56 on
    takes the state after block i. The default variant is that of the installed transformers; `vendor` is the
    other one.
    """

    family = "mllama"
    variants: ClassVar = {
        "transformers": _CUT + "after block i, as transformers from 4.56 on does",
        "vendor": _CUT + "before block i, as the vendor's code, vLLM and older transformers do",
    }
    blocks_at = "transformer.layers"
    unit = "picture (the largest number of tiles; unused tiles are padding and are computed, too)"

    @property
    def exits(self) -> Exits:
        """Main track `local`, then `global`, whose full depth equals the default, and `intermediate`."""
        layers = super().exits.layers
        self._indices()
        return Exits(
            layers, layers, "local",
            (Track("global", len(self._global_blocks)), Track("intermediate", layers, swept=False)),
        )  # fmt: skip

    @property
    def _global_blocks(self) -> nn.ModuleList:
        found = self.tower.global_transformer.layers
        assert isinstance(found, nn.ModuleList)  # noqa: S101 - for the type checker
        return found

    @property
    def all_blocks(self) -> list[nn.Module]:
        """See `Vlm.all_blocks`."""
        return [*self.blocks, *self._global_blocks]

    def unused_blocks(self, exit: int) -> list[nn.Module]:
        """See `Vlm.unused_blocks`."""
        track, at = self.exits.place(exit)
        if track == "intermediate":
            return []
        return list(self.blocks)[at:] if track == "local" else list(self._global_blocks)[at:]

    @property
    def states(self) -> int:
        """See `Vlm.states`: every tile's patches and class token, padded to a multiple of 8."""
        return int(self.tower.max_num_tiles * -(-self.tower.num_patches // 8) * 8)

    def sample(self) -> dict[str, Tensor]:
        """See `Vlm.sample`."""
        config = self.tower.config
        tiles, size = config.max_num_tiles, config.image_size
        return {
            "pixel_values": torch.zeros(1, 1, tiles, config.num_channels, size, size),
            "aspect_ratio_ids": torch.ones(1, 1, dtype=torch.long),
            "aspect_ratio_mask": torch.ones(1, 1, tiles, dtype=torch.long),
        }

    def _indices(self) -> list[int]:
        """Indices of the intermediate states in transformers' numbering, after block i."""
        own = list(self.model.config.vision_config.intermediate_layers_indices)
        if any(not 0 <= index < len(self.blocks) for index in own):
            raise LayeralignError(
                f"model {self.checkpoint.name}: intermediate_layers_indices {own} has a block outside its "
                f"{len(self.blocks)} blocks"
            )
        if self.reading == "transformers":
            return own
        if 0 in own:
            raise LayeralignError(
                f"model {self.checkpoint.name}: intermediate_layers_indices has 0, the embeddings in variant "
                "vendor, which transformers cannot return; use variant transformers"
            )
        return [index - 1 for index in own]

    @contextmanager
    def _read(self) -> Iterator[None]:
        """Context in which the tower reads the intermediate states of the variant."""
        vision = self.tower
        own = vision.intermediate_layers_indices
        vision.intermediate_layers_indices = self._indices()
        try:
            yield
        finally:
            vision.intermediate_layers_indices = own

    def _encode(self, pictures: Sequence[Image.Image], exits: Sequence[int]) -> dict[int, list[Feature]]:
        """See `Vlm.encode`; the features are the states of all tiles, including padding tiles."""
        made = self.processed(pictures, self.processor.image_processor, return_tensors="pt")
        takes = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
        run = partial(self.tower, **{name: self._put(made[name]) for name in takes})
        found = {}
        for exit, state in self._states(run, exits):
            # [n, tiles · patches, width]
            projected = self.model.model.multi_modal_projector(state).flatten(1, -2)
            found[exit] = [
                Feature(tokens, self.placeholder, {"tiles": torch.tensor(tiles)})
                for tokens, (tiles,) in zip(projected, made["num_tiles"], strict=True)
            ]
        return found

    def picture_text(self, picture: Image.Image) -> str:
        """See `Vlm.picture_text`; always one token."""
        return self.placeholder

    def _states(self, run: Callable[[], Any], exits: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        """Yield each exit's output, [n, 1, tiles, patches, (1 + intermediates) · width], one at a time."""
        places = {exit: self.exits.place(exit) for exit in exits}
        last = len(self.blocks)
        local = {at if track != "global" else last for track, at in places.values()}
        local |= {last for track, _ in places.values() if track != "local"}
        captured_layers = {index + 1 for index in self._indices() if index + 1 < max(local)}
        depths = {at for track, at in places.values() if track == "global"}
        with self._read():
            known = tower.states(run, self.blocks, local | captured_layers)
            beyond = {}
            if depths:
                with tower.held(self.blocks, known, last):
                    beyond = tower.states(run, self._global_blocks, depths)

        def output(at: int, depth: int | None = None) -> Tensor:
            with ExitStack() as stack:
                stack.enter_context(self._read())
                stack.enter_context(tower.held(self.blocks, known, at))
                if depth is not None:
                    stack.enter_context(tower.held(self._global_blocks, beyond, depth))
                found: Tensor = run().last_hidden_state
                return found

        width = self.model.config.vision_config.hidden_size
        for exit, (track, at) in places.items():
            if track == "global":
                yield exit, output(last, at)
            elif track == "intermediate":
                yield exit, torch.cat([output(last)[..., :width], output(at)[..., width:]], dim=-1)
            else:
                yield exit, output(at)

    @property
    def picture_token_id(self) -> int:
        """See `Vlm.picture_token_id`; one token stands for a picture, independent of its states."""
        return int(self.model.config.image_token_index)

    def inputs(self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None]) -> dict[str, Any]:
        """See `Vlm.inputs`: states for cross-attention, and a mask by which text after a picture reads it.

        A row without a picture gets zeros, whose values are zero, so that it reads nothing.
        """
        seen = [feature for feature in features if feature is not None]
        if not seen:
            return {}
        states = seen[0].tokens.new_zeros(len(ids), *seen[0].tokens.shape)
        mask = ids.new_zeros(*ids.shape, 1, self.model.config.vision_config.max_num_tiles)
        behind = ((ids == self.picture_token_id) & prompt).cumsum(-1) > 0
        for row, feature in enumerate(features):
            if feature is not None:
                states[row] = feature.tokens
                mask[row, :, 0, : int(feature.extras["tiles"])] = behind[row, :, None]
        return {"cross_attention_states": states, "cross_attention_mask": mask}

    @property
    def cross_attention_layers(self) -> frozenset[int]:
        """See `Vlm.cross_attention_layers`."""
        return frozenset(self.model.config.get_text_config().cross_attention_layers)

    def decode_step(
        self,
        ids: Tensor,
        positions: Tensor,
        cache: Cache,
        inside: Tensor | None,
        extra_inputs: Mapping[str, Tensor],
    ) -> Tensor:
        """See `Vlm.decode_step`; the tokens read the same tiles."""
        spread = {name: one.expand(-1, ids.shape[1], -1, -1) for name, one in extra_inputs.items()}
        return super().decode_step(ids, positions, cache, inside, spread)

    def extra_inputs(self, feature: Feature | None) -> dict[str, Tensor]:
        """See `Vlm.extra_inputs`: the mask of the row's tiles."""
        mask = torch.zeros(
            1, 1, 1, self.model.config.vision_config.max_num_tiles, dtype=torch.long, device=self.device
        )
        if feature is not None:
            mask[..., : int(feature.extras["tiles"])] = 1
        return {"cross_attention_mask": mask}

    def generate(
        self, ids: Sequence[Sequence[int]], features: Sequence[Feature | None], **settings: Any
    ) -> Tensor:
        """See `Vlm.generate`; states for cross-attention are given once, then cached."""
        own = self.model.prepare_inputs_for_generation

        @wraps(own)
        def once(*args: Any, **kwargs: Any) -> Any:
            made = own(*args, **kwargs)
            if not kwargs.get("is_first_iteration"):
                made["cross_attention_states"] = None
            return made

        self.model.prepare_inputs_for_generation = once
        try:
            return super().generate(ids, features, **settings)
        finally:
            del self.model.prepare_inputs_for_generation
