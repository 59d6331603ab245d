"""Models of unknown families: one tower with one list of blocks, and features in the prompt."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, ProcessorMixin
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.vlm.checkpoint import Checkpoint
from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm

_DEEPSTACK = "deepstack_features"


class Generic(Vlm):
    """Any LLaVA-like model; it is checked on a grey picture before use.

    The tower is found by transformers' names, and its blocks as its only `nn.ModuleList` of equal blocks.
    """

    family = "generic"
    variants: ClassVar = {
        "cut": "blocks 1..l of the tower, then all that follows them in the model's own code"
    }
    streams = False  # its positions and its cache are unknown
    blocks_at = ""

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin | None,
        checkpoint: Checkpoint,
        variant: str | None = None,
    ) -> None:
        super().__init__(model, processor, checkpoint, variant)
        if not hasattr(self.inner, "get_image_features"):
            self.refuse("has no get_image_features")
        if self.model.get_decoder() in (self.model, self.inner):
            self.refuse("has no language model under a name known to transformers")
        named = isinstance(self.tower, nn.Module)
        if not named or self.tower in (self.model, self.inner):
            self.refuse("has no vision tower under a name known to transformers")

    def refuse(self, what: str) -> NoReturn:
        """See `Vlm.refuse`."""
        kind = self.model.config.model_type
        raise LayeralignError(
            f"model {self.checkpoint.name}: family {printable(str(kind), 60)!r} is unknown, and it is not "
            f"like LLaVA, since it {what}; CONTRIBUTING explains how to add a family"
        )

    @cached_property
    def _forward_takes(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.inner.forward).parameters)

    def extras(self, output: Any, inputs: Mapping[str, Any], n: int, exit: int) -> list[dict[str, Tensor]]:
        """See `Vlm.extras`: what the forward takes of a picture besides its features, such as its grid.

        Deepstack features, of further layers, are [layers, picture tokens, text width].
        """
        told = {
            name: given
            for name, given in inputs.items()
            if name in self._forward_takes and "pixel" not in name and isinstance(given, Tensor)
        }
        extras = [
            {name: given[at : at + 1] for name, given in told.items() if len(given) == n} for at in range(n)
        ]
        layers = getattr(output, "deepstack_features", None) or []
        for at, extra in enumerate(extras if layers else ()):
            extra[_DEEPSTACK] = torch.stack([layer[at] for layer in layers])
        return extras

    def inputs(self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None]) -> dict[str, Any]:
        """See `Vlm.inputs`; also each picture's `extras`, and the tokens that stand for a picture."""
        given = super().inputs(ids, prompt, features)
        extras = [feature.extras for feature in features if feature is not None]
        for name in set(extras[0] if extras else ()) - {_DEEPSTACK}:
            given[name] = torch.cat([one[name] for one in extras]).to(ids.device)
        if extras and _DEEPSTACK in extras[0]:
            layers: Any = [list(layer) for layer in zip(*(one[_DEEPSTACK] for one in extras), strict=True)]
            given["mm_encoder_outputs"]["image"] = BaseModelOutputWithDeepstackFeatures(
                **given["mm_encoder_outputs"]["image"], deepstack_features=layers
            )
        pictures = (ids == self.picture_token_id) & prompt
        kinds = {"mm_token_type_ids", "token_type_ids"}.intersection(self._forward_takes)
        return given | dict.fromkeys(kinds, pictures.long())

    @property
    def states(self) -> int | None:
        """See `Vlm.states`; None, since the encoder may have windows, tiles or pictures of any size."""
        return None
