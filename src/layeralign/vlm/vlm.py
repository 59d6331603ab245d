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
from layeralign.vlm.checkpoint import Checkpoint
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
