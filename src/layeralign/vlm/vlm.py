"""A vision-language model as layeralign sees it: encode → exit at l → project → language model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, ProcessorMixin

from layeralign.errors import LayeralignError
from layeralign.text import printable
from layeralign.vlm.checkpoint import Adapter, Checkpoint
from layeralign.vlm.exits import Exits


class Vlm(ABC):
    """One loaded model of one family. A new family subclasses this; see CONTRIBUTING.

    Nothing here changes the wrapped model.
    """

    family: ClassVar[str]
    """The `model_type` of the checkpoints that this class serves."""
    variant: ClassVar[str]
    """How the family reads "exit at l", in one sentence; part of a run's identity."""

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, checkpoint: Checkpoint) -> None:
        # Any: what a family's model and processor have is more than their base classes declare
        self.model: Any = model
        self.processor: Any = processor
        self.checkpoint = checkpoint
        self.adapter: Adapter | None = None

    @property
    def name(self) -> str:
        """The model as it was given, and its adapter."""
        return f"{self.checkpoint.name} + {self.adapter.name}" if self.adapter else self.checkpoint.name

    @property
    def device(self) -> torch.device:
        """Where the language model's inputs go."""
        found: torch.device = self.model.get_input_embeddings().weight.device
        return found

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def pad_token(self) -> int:
        """Id that fills batches; the mask comes from lengths, so any id would do."""
        names = self.tokenizer
        return int(names.eos_token_id if names.pad_token_id is None else names.pad_token_id)

    @property
    def eos_tokens(self) -> frozenset[int]:
        """Ids that end an answer."""
        ends = self.model.generation_config.eos_token_id
        ends = self.tokenizer.eos_token_id if ends is None else ends
        return frozenset(ends if isinstance(ends, list) else [ends])

    @property
    def unsayable(self) -> list[int]:
        """Ids that an answer must not hold: special tokens, the picture's place among them, but no end."""
        special = {*self.tokenizer.all_special_ids, self.picture_token_id}
        return sorted(special - self.eos_tokens)

    @property
    def text_width(self) -> int:
        """Width of the language model's embeddings."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    @property
    @abstractmethod
    def exits(self) -> Exits:
        """The exits of this model's encoder and its default one."""

    @property
    @abstractmethod
    def picture_token(self) -> str:
        """The text that stands for a picture in a prompt, as `<image>`."""

    @property
    def picture_token_id(self) -> int:
        """The id of `picture_token`."""
        return int(self.tokenizer.convert_tokens_to_ids(self.picture_token))

    @abstractmethod
    def encode(self, pictures: Sequence[Image.Image], exits: Sequence[int]) -> dict[int, list[Tensor]]:
        """Picture features at each exit, projected into the language model's width.

        Args:
            pictures: n RGB pictures.
            exits: indices as in `Exits`; blocks past the deepest are not run.

        Returns:
            exit -> n tensors [picture tokens, text width], in the model's dtype.
        """

    def prompt(self, text: str, *, picture: bool) -> str:
        """`text` as the user's turn in the model's own chat template, ready to be answered."""
        content = [{"type": "image"}] if picture else []
        turn = {"role": "user", "content": [*content, {"type": "text", "text": text}]}
        try:
            return str(self.processor.apply_chat_template([turn], add_generation_prompt=True))
        except Exception as error:  # a template is a program of the checkpoint's, run in a sandbox
            raise LayeralignError(
                f"model {self.checkpoint.name}: its chat template fails ({printable(str(error), 200)})"
            ) from error

    @abstractmethod
    def tokens(self, prompt: str, picture_tokens: int | None) -> list[int]:
        """Token ids of a templated prompt, its picture's place as wide as its features.

        Args:
            prompt: what `prompt` returned.
            picture_tokens: number of picture tokens, None for a prompt without picture.
        """

    @property
    @abstractmethod
    def language_modules(self) -> str:
        """A regular expression of the linear layers of the language model's blocks, by full name."""

    @abstractmethod
    def hidden(self, ids: Tensor, places: Tensor, features: Tensor) -> Tensor:
        """The language model's last hidden states, with gradients where the caller allows them.

        Rows are padded on the right, so that causal attention alone keeps padding out.

        Args:
            ids: int64 [rows, tokens]; what stands at `places` and in the padding does not matter.
            places: bool [rows, tokens], where picture features go, in reading order.
            features: [places, text width], those of all rows in a row.

        Returns:
            [rows, tokens, text width] in the model's dtype.
        """

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of the next token, [..., vocabulary] for hidden states [..., text width]."""

    @abstractmethod
    def generate(
        self, ids: Sequence[Sequence[int]], features: Sequence[Tensor | None], **settings: Any
    ) -> Tensor:
        """Answer a batch whose rows may differ in text, picture and exit.

        Args:
            ids: token ids per row, from `tokens`.
            features: per row [picture tokens, text width] from `encode`, None without picture.
            settings: what transformers' `generate` takes.

        Returns:
            int64 [rows, answer tokens], padded on the right with the pad token.
        """
