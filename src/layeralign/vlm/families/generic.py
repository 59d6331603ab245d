"""Models of unknown families: one tower with one list of blocks, and features in the prompt."""

from __future__ import annotations

from typing import ClassVar, NoReturn

from torch import nn
from transformers import PreTrainedModel, ProcessorMixin

from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.vlm.checkpoint import Checkpoint
from layeralign.vlm.vlm import Vlm


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
        for wanted, what in (
            ("get_image_features", "has no get_image_features"),
            ("language_model", "has no language_model"),
        ):
            if not hasattr(getattr(self.model, "model", None), wanted):
                self.refuse(what)
        named = isinstance(self.tower, nn.Module)
        if not named or self.tower is self.model or self.tower is self.model.model:
            self.refuse("has no vision tower under a name known to transformers")

    def refuse(self, what: str) -> NoReturn:
        """See `Vlm.refuse`."""
        kind = self.model.config.model_type
        raise LayeralignError(
            f"model {self.checkpoint.name}: family {printable(str(kind), 60)!r} is unknown, and it is not "
            f"like LLaVA, since it {what}; CONTRIBUTING explains how to add a family"
        )

    @property
    def states(self) -> int | None:
        """See `Vlm.states`; None, since the encoder may have windows, tiles or pictures of any size."""
        return None
