"""BLIP, read by cross-attention. BLIP-2 and InstructBLIP: a Q-Former before the language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel, ProcessorMixin

from layeralign.errors import LayeralignError
from layeralign.vlm.checkpoint import Checkpoint
from layeralign.vlm.families.apart import Apart, equal_ids
from layeralign.vlm.feature import Feature
from layeralign.vlm.text import template
from layeralign.vlm.text.ends import Ends
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
        template.refuse_system(self.checkpoint.name, system)
        return f"{self.placeholder if picture else ''}Question: {text} Answer:"

    def tokens(self, prompt: str, feature: Feature | None) -> list[int]:
        """See `Vlm.tokens`; the picture's tokens go before the BOS."""
        said = super().tokens(prompt.removeprefix(self.placeholder), None)
        places = 0 if feature is None else feature.text.count(self.placeholder)
        return [self.picture_token_id] * places + said

    def own_inputs(self, prompt: str, picture: Image.Image, ids: Sequence[int]) -> dict[str, Any] | None:
        """See `Vlm.own_inputs`; its processor itself writes what goes before the text."""
        text = prompt.removeprefix(self.placeholder)
        return equal_ids(self, self.processor(images=picture, text=text, return_tensors="pt"), ids)

    @property
    def generator(self) -> Any:
        """See `Vlm.generator`; the language model, as the model's own `generate` would encode again."""
        return self.model.language_model

    def inputs(self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None]) -> dict[str, Any]:
        """See `Vlm.inputs`: embeddings, with each picture's features in their places."""
        made = self.model.get_input_embeddings()(ids)
        rows = zip(features, ids, prompt, strict=True)
        tokens = [self.placed(feature, row[said]) for feature, row, said in rows if feature is not None]
        if tokens:
            pictures = (ids == self.picture_token_id) & prompt
            made = made.masked_scatter(pictures[..., None], torch.cat(tokens).to(made))
        return {"inputs_embeds": made}

    def placed(self, feature: Feature, said: Tensor) -> Tensor:
        """What goes into a picture's places in a prompt with the ids `said`, [places, text width]."""
        return feature.tokens

    def last_hidden(self, ids: Tensor, **given: Any) -> Tensor:
        """See `Vlm.last_hidden`; `given` holds the embeddings of `ids`."""
        found: Tensor = self.generator.get_decoder()(**given).last_hidden_state
        return found


class InstructBlip(Apart, Blip2):
    """InstructBLIP, whose Q-Former reads the prompt, too: a picture's feature is its encoder's states."""

    family = "instructblip"
    variants: ClassVar = {"norm": "blocks 1..l, post-norm; then Q-Former with the prompt, projection"}
    exits_together = False

    def made(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """See `Apart.made`."""
        found: Tensor = self.tower(**inputs).last_hidden_state
        return found

    def asked(self, text: str) -> str:
        """See `Apart.asked`; the text alone, as on the model's card."""
        return text

    def placed(self, feature: Feature, said: Tensor) -> Tensor:
        """See `Blip2.placed`; the Q-Former reads the text of these ids."""
        text = self.tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        read = self.processor.qformer_tokenizer([text], return_tensors="pt")["input_ids"].to(said.device)
        query = self.model.query_tokens
        mask = torch.ones(1, query.shape[1] + read.shape[1], dtype=torch.long, device=said.device)
        states = self.model.qformer(
            input_ids=read,
            attention_mask=mask,
            query_embeds=query,
            encoder_hidden_states=feature.tokens[None],
        ).last_hidden_state
        found: Tensor = self.model.language_projection(states[0, : query.shape[1]])
        return found


class Blip(Apart):
    """BLIP, which continues a text; cross-attention reads the picture, and no token stands for it."""

    family = "blip"
    variants: ClassVar = {"norm": "blocks 1..l, post-norm"}
    answers_alone = True
    """A row without a picture skips cross-attention, and padding on the left moves positions."""
    placeholder = "<image>"
    asks_otherwise = True

    def prepare(self, pictures: Sequence[Image.Image]) -> tuple[dict[str, Any], list[str]]:
        """See `Vlm.prepare`."""
        made = self.processed(pictures, self.processor.image_processor, return_tensors="pt")
        return {"pixel_values": self._put(made["pixel_values"])}, [""] * len(pictures)

    def made(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """See `Apart.made`."""
        found: Tensor = self.tower(**inputs).last_hidden_state
        return found

    def asked(self, text: str) -> str:
        """See `Apart.asked`."""
        return text

    @property
    def picture_token_id(self) -> int:
        """See `Vlm.picture_token_id`; one that no prompt has, since the model's own start replaces it."""
        return int(self.tokenizer.cls_token_id)

    @cached_property
    def ends(self) -> Ends:
        """See `Vlm.ends`; also the one that the model's own `generate` stops at."""
        return {int(self.model.config.text_config.sep_token_id): ("config",)} | super().ends

    def tokens(self, prompt: str, feature: Feature | None) -> list[int]:
        """See `Vlm.tokens`; behind the start that the model's own `generate` puts there."""
        text = prompt.removeprefix(self.placeholder)
        said = template.encode(self.tokenizer, text, [], writes_bos=True)
        return [int(self.model.config.text_config.bos_token_id), *said]

    @property
    def generator(self) -> Any:
        """See `Vlm.generator`; the language model, as the model's own `generate` would encode again."""
        return self.model.text_decoder

    @property
    def language_parts(self) -> list[nn.Module]:
        """See `Vlm.language_parts`."""
        return [self.generator.bert]

    def inputs(self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None]) -> dict[str, Any]:
        """See `Vlm.inputs`: what cross-attention reads, of one row."""
        tokens = [feature.tokens for feature in features if feature is not None]
        return {"encoder_hidden_states": torch.stack(tokens)} if tokens else {}

    def hidden(
        self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None], cache: Cache | None = None
    ) -> Tensor:
        """See `Vlm.hidden`; row by row, since all rows of a batch would read a picture."""
        rows = [slice(at, at + 1) for at in range(len(ids))]
        return torch.cat([super(Blip, self).hidden(ids[at], prompt[at], features[at]) for at in rows])

    def last_hidden(self, ids: Tensor, **given: Any) -> Tensor:
        """See `Vlm.last_hidden`."""
        found: Tensor = self.generator.bert(input_ids=ids, is_decoder=True, **given).last_hidden_state
        return found

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Vlm.logits`; a layer goes before the head."""
        found: Tensor = self.generator.cls(hidden)
        return found
