"""BLIP-2: a Q-Former between the encoder and a language model that is given embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from layeralign.errors import LayeralignError
from layeralign.vlm.checkpoint import Checkpoint
from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm


class Blip2(Vlm):
    """BLIP-2 with a causal language model; it has no chat template, and its prompt is that of its paper."""

    family = "blip-2"
    variants: ClassVar = {"norm": "blocks 1..l, post-norm, Q-Former, projection"}
    exits_together = True
    streams = False

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin | None,
        checkpoint: Checkpoint,
        variant: str | None = None,
    ) -> None:
        super().__init__(model, processor, checkpoint, variant)
        if not self.model.config.use_decoder_only_language_model:
            raise LayeralignError(
                f"model {checkpoint.name}: its language model is an encoder-decoder, which layeralign does "
                "not support; use a BLIP-2 with OPT"
            )

    def prepare(self, pictures: Sequence[Image.Image]) -> tuple[dict[str, Any], list[str]]:
        """See `Vlm.prepare`; its processor writes one token per query."""
        made = self.processed(pictures, self.processor.image_processor, return_tensors="pt")
        texts = [self.placeholder * int(self.model.config.num_query_tokens)] * len(pictures)
        return {"pixel_values": self._put(made["pixel_values"])}, texts

    def prompt(self, text: str, *, picture: bool, system: str = "", date: str = "") -> str:
        """See `Vlm.prompt`; the question and answer of the paper, which has no system turn."""
        if system:
            raise LayeralignError(
                f"model {self.checkpoint.name}: BLIP-2 does not support a system prompt; remove it"
            )
        return f"{self.placeholder if picture else ''}Question: {text} Answer:"

    def tokens(self, prompt: str, feature: Feature | None) -> list[int]:
        """See `Vlm.tokens`; the picture's tokens go before the BOS."""
        said = super().tokens(prompt.removeprefix(self.placeholder), None)
        return said if feature is None else [self.picture_token_id] * len(feature.tokens) + said

    @property
    def generator(self) -> Any:
        """See `Vlm.generator`; the language model, as the model's own `generate` would encode again."""
        return self.model.language_model

    def inputs(self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None]) -> dict[str, Any]:
        """See `Vlm.inputs`: embeddings, with each picture's features in their places."""
        made = self.model.get_input_embeddings()(ids)
        tokens = [feature.tokens for feature in features if feature is not None]
        if tokens:
            pictures = (ids == self.picture_token_id) & prompt
            made = made.masked_scatter(pictures[..., None], torch.cat(tokens).to(made))
        return {"inputs_embeds": made}

    def last_hidden(self, ids: Tensor, **given: Any) -> Tensor:
        """See `Vlm.last_hidden`; `given` holds the embeddings of `ids`."""
        found: Tensor = self.generator.get_decoder()(**given).last_hidden_state
        return found
