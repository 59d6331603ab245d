"""Idefics3 and SmolVLM: SigLIP, pixel shuffle. Idefics2: a resampler. Idefics 1: read by cross-attention."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor, nn

from layeralign.vlm.families.apart import Apart, equal_ids
from layeralign.vlm.families.generic import Generic
from layeralign.vlm.feature import Feature
from layeralign.vlm.text import template
from layeralign.vlm.vlm import Vlm


class Idefics3(Vlm):
    """Idefics3."""

    family = "idefics3"
    lead_alone = True
    unit = "tile (the number of tiles depends on the picture's size)"
    variants: ClassVar = {"norm": "for every tile blocks 1..l, post-norm, connector (pixel shuffle, linear)"}


class SmolVlm(Idefics3):
    """SmolVLM and SmolVLM2."""

    family = "smolvlm"


class Idefics2(Generic):
    """Idefics2, whose processor does not say what stands for a picture."""

    family = "idefics2"
    variants: ClassVar = {"norm": "for every tile blocks 1..l, post-norm, connector (projection, resampler)"}

    def replacements(self, made: Any) -> list[str]:
        """See `Vlm.replacements`, without the space that goes before a word; `tokens` writes it."""
        return [text.rstrip(" ") for text in super().replacements(made)]

    def tokens(self, prompt: str, feature: Feature | None) -> list[int]:
        """See `Vlm.tokens`; as in the processor, a word does not touch the picture's last token."""
        edge = re.escape(self.processor.fake_image_token)
        spaced = re.sub(rf"({re.escape(self.placeholder)})(?=[^\s<])", r"\1 ", prompt)
        return super().tokens(re.sub(rf"({edge})(?=[^\s<])", r"\1 ", spaced), feature)


class Idefics(Apart):
    """Idefics 1; one token stands for a picture, and layers of cross-attention read its states."""

    family = "idefics"
    variants: ClassVar = {"blocks": "blocks 1..l, no post-norm, the resampler if the config has one"}
    placeholder = picture_token = "<image>"

    def prepare(self, pictures: Sequence[Image.Image]) -> tuple[dict[str, Any], list[str]]:
        """See `Vlm.prepare`."""
        made = self.processed(pictures, self.processor.image_processor, return_tensors="pt")
        edge = "<fake_token_around_image>"
        return {"pixel_values": self._put(made)}, [f"{edge}{self.placeholder}{edge}"] * len(pictures)

    def made(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """See `Apart.made`."""
        states: Tensor = self.tower(**inputs).last_hidden_state
        return self.inner.perceiver_resampler(states) if self.model.config.use_resampler else states

    def prompt(self, text: str, *, picture: bool, system: str = "", date: str = "") -> str:
        """See `Vlm.prompt`; the turns of the instructed models' card, behind the BOS."""
        said = (
            self.placeholder + text.lstrip(" ") if picture else text
        )  # its processor strips behind a picture
        end = "<end_of_utterance>" if "<end_of_utterance>" in self.added_tokens else ""
        template.refuse_system(self.checkpoint.name, system)
        return f"{self.tokenizer.bos_token}User:{said}{end}\nAssistant:"

    @property
    def picture_token_id(self) -> int:
        """See `Vlm.picture_token_id`."""
        return int(self.tokenizer.convert_tokens_to_ids(self.picture_token))

    def own_inputs(self, prompt: str, picture: Image.Image, ids: Sequence[int]) -> dict[str, Any] | None:
        """See `Vlm.own_inputs`; its processor takes texts and pictures in one list."""
        before, _, behind = prompt.removeprefix(self.tokenizer.bos_token).partition(self.placeholder)
        made = self.processor(text=[[before, picture, behind]], add_end_of_utterance_token=False)
        return equal_ids(self, made, ids)

    @property
    def language_parts(self) -> list[nn.Module]:
        """See `Vlm.language_parts`; the tower and the resampler are among them."""
        inner = self.inner
        return [inner.embed_tokens, inner.layers, inner.gated_cross_attn_layers, inner.norm]

    def inputs(self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None]) -> dict[str, Any]:
        """See `Vlm.inputs`: states, and which tokens read them; a row without a picture has none that do."""
        seen = [feature.tokens for feature in features if feature is not None]
        shape = seen[0].shape if seen else (1, self.tower.config.hidden_size)
        states = self.inner.norm.weight.new_zeros(len(ids), 1, *shape)
        for row, feature in enumerate(features):
            if feature is not None:
                states[row, 0] = feature.tokens
        behind = ((ids == self.picture_token_id) & prompt).cumsum(-1) > 0
        return {"image_hidden_states": states, "image_attention_mask": behind[..., None].long()}

    def last_hidden(self, ids: Tensor, **given: Any) -> Tensor:
        """See `Vlm.last_hidden`; the model's own `generate` has another name for the states."""
        name = "perceiver_embeddings" if self.model.config.use_resampler else "image_encoder_embeddings"
        return super().last_hidden(ids, **{name: given.pop("image_hidden_states")}, **given)
