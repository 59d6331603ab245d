"""Families whose forward takes a picture's features in a way of its own: Kosmos-2 and Kosmos-2.5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn
from transformers.models.kosmos2.modeling_kosmos2 import Kosmos2Model

from layeralign.vlm import tower
from layeralign.vlm.feature import Feature
from layeralign.vlm.text import template
from layeralign.vlm.vlm import Vlm


class Apart(Vlm):
    """A family without `get_image_features` that says itself what follows its tower."""

    streams = False

    def made(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The features of n pictures, [n, tokens, width], as the model's own forward makes them."""
        raise NotImplementedError

    def _encode(self, pictures: Sequence[Image.Image], exits: Sequence[int]) -> dict[int, list[Feature]]:
        """See `Vlm.encode`."""
        inputs, texts = self.prepare(pictures)
        run = partial(self.made, inputs)
        states = tower.states(run, self.blocks, exits)
        found = {}
        for exit in exits:
            with tower.held(self.blocks, {exit: states[exit]}, exit, tuples=self.tuples):
                found[exit] = [Feature(*one, {}) for one in zip(run(), texts, strict=True)]
        return found

    def asked(self, text: str) -> str:
        """The prompt without its picture, of a model that has no chat template."""
        raise NotImplementedError

    def prompt(self, text: str, *, picture: bool, system: str = "", date: str = "") -> str:
        """See `Vlm.prompt`; the picture goes first."""
        template.refuse_system(self.checkpoint.name, system)
        return f"{self.placeholder if picture else ''}{self.asked(text)}"


def equal_ids(vlm: Vlm, made: Mapping[str, Tensor], ids: Sequence[int]) -> dict[str, Any] | None:
    """The output of a family's own processor if it has these ids, else None; see `Vlm.own_inputs`."""
    if made["input_ids"][0].tolist() != list(ids):
        return None
    return {name: vlm._put(given) for name, given in made.items()}


class Kosmos2(Apart):
    """Kosmos-2. Ids of plain words hold a picture's places, so `<image>` before them stands for it."""

    family = "kosmos-2"
    variants: ClassVar = {"norm": "blocks 1..l, post-norm, states of length 1, resampler"}
    blocks_at = "model.encoder.layers"
    answers_alone = True
    """In transformers, padding on the left moves the positions of what is generated."""
    pixels: ClassVar = "pixel_values"
    start: ClassVar = "<image>"
    written: ClassVar = "<image></image> "
    """What stands for a picture, whose places go in between."""
    around: ClassVar = 0
    """What the mask of a picture's places has at the tokens around them."""

    def prepare(self, pictures: Sequence[Image.Image]) -> tuple[dict[str, Any], list[str]]:
        """See `Vlm.prepare`."""
        made = self.processed(pictures, self.processor, return_tensors="pt")
        return {self.pixels: self._put(made[self.pixels])}, [self.written] * len(pictures)

    def made(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """See `Apart.made`."""
        found: Tensor = Kosmos2Model.get_image_features(self.model, **inputs, return_dict=True).pooler_output
        return found

    def prompt(self, text: str, *, picture: bool, system: str = "", date: str = "") -> str:
        """See `Vlm.prompt`; it starts with the BOS, as its processor writes it."""
        return f"{self.tokenizer.bos_token}{super().prompt(text, picture=picture, system=system, date=date)}"

    def asked(self, text: str) -> str:
        """See `Apart.asked`; as on the model's card."""
        return f"Question: {text} Answer:"

    @property
    def placeholder(self) -> str:
        """See `Vlm.placeholder`."""
        return self.start

    @property
    def picture_token_id(self) -> int:
        """See `Vlm.picture_token_id`."""
        return int(self.tokenizer.convert_tokens_to_ids(self.start))

    def places(self, n: int) -> list[int]:
        """The ids that its processor writes for a picture's n features, which replace their embeddings."""
        first = self.tokenizer.unk_token_id + 1
        return list(range(first, first + n))

    def tokens(self, prompt: str, feature: Feature | None) -> list[int]:
        """See `Vlm.tokens`."""
        ids = super().tokens(prompt, feature)
        if feature is None:
            return ids
        at = ids.index(self.picture_token_id) + 1
        return [*ids[:at], *self.places(len(feature.tokens)), *ids[at:]]

    def own_inputs(self, prompt: str, picture: Image.Image, ids: Sequence[int]) -> dict[str, Any] | None:
        """See `Vlm.own_inputs`; its processor itself writes what goes before the text."""
        text = prompt.removeprefix(self.tokenizer.bos_token).removeprefix(self.placeholder)
        return equal_ids(self, self.processor(images=picture, text=text, return_tensors="pt"), ids)

    @property
    def generator(self) -> Any:
        """See `Vlm.generator`; the language model, as the model's own `generate` would encode again."""
        return self.model.text_model

    @property
    def language_parts(self) -> list[nn.Module]:
        """See `Vlm.language_parts`."""
        return [self.generator.model]

    def inputs(self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None]) -> dict[str, Any]:
        """See `Vlm.inputs`: the features, and a mask of their places."""
        tokens = [feature.tokens for feature in features if feature is not None]
        if not tokens:
            return {}
        mask = torch.zeros_like(ids)
        for row, feature in enumerate(features):
            if feature is not None:
                at = int(((ids[row] == self.picture_token_id) & prompt[row]).nonzero()[0])
                mask[row, [at, at + len(feature.tokens) + 1]] = self.around
                mask[row, at + 1 : at + 1 + len(feature.tokens)] = 1
        return {"image_embeds": torch.stack(tokens), "image_embeds_position_mask": mask}

    def last_hidden(self, ids: Tensor, **given: Any) -> Tensor:
        """See `Vlm.last_hidden`."""
        found: Tensor = self.generator.model(input_ids=ids, **given).last_hidden_state
        return found


class Kosmos25(Kosmos2):
    """Kosmos-2.5, whose tower is that of Pix2Struct: up to 4096 patches, by the picture's shape."""

    family = "kosmos-2.5"
    variants: ClassVar = {"norm": "blocks 1..l, final norm, states of length 1, resampler"}
    blocks_at = "encoder.layer"
    pixels = "flattened_patches"
    written = "<image></image>"
    around = -1
    places_are_bos = True

    def made(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """See `Apart.made`."""
        states = nn.functional.normalize(self.tower(**inputs).last_hidden_state, dim=-1)
        found: Tensor = self.model.image_to_text_projection(states)[0]
        return found

    def asked(self, text: str) -> str:
        """See `Apart.asked`; that of Kosmos-2.5-chat, in transformers' docs."""
        return (
            "<md>A chat between a curious user and an artificial intelligence assistant. The assistant gives "
            f"helpful, detailed, and polite answers to the user's questions. USER: {text} ASSISTANT:"
        )

    def places(self, n: int) -> list[int]:
        """See `Kosmos2.places`."""
        return [int(self.tokenizer.convert_tokens_to_ids(self.processor.image_token))] * n

    @property
    def states(self) -> None:
        """See `Vlm.states`; the number of patches depends on the picture."""
        return None

    def sample(self) -> dict[str, Tensor]:
        """See `Vlm.sample`: the most patches, each with its row and column before its pixels."""
        config = self.tower.config
        return {self.pixels: torch.ones(1, config.max_num_patches, 2 + config.patch_embed_hidden_size)}
