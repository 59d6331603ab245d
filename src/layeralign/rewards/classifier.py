"""A sequence classifier, which maps texts to numbers.

Decoders (GPT-2, Llama, ...: transformers names their head `score`) read one text, and the score is that of
its last token. Its position comes from the text's length, not from pad ids, which may be real tokens (GPT-2
pads with its end token). Encoders (BERT, DeBERTa, ...) read request and answer as a pair of texts and pool
their states themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.vlm import limits, rope
from layeralign.vlm.text import template

_SHORTEST = 8
"""Least length limit of a row, in tokens: special tokens, and a few of the texts."""
_LONGEST = 10**9
"""Length limit where neither the config nor the tokenizer has one; a tokenizer may say 10^30."""
Row = dict[str, list[int]]
"""Token ids (`input_ids`) of one text, and `token_type_ids` where the model is an encoder."""


@dataclass(frozen=True)
class Classifier:
    """A `*ForSequenceClassification` and its tokenizer."""

    model: Any
    tokenizer: Any

    def __post_init__(self) -> None:
        """Check the length limit.

        Raises:
            LayeralignError: it has no room for a text.
        """
        if self.longest < _SHORTEST:
            raise LayeralignError(
                f"{self._what}: reads {self.longest} tokens "
                f"by its config and its tokenizer's model_max_length; expected {_SHORTEST} or more"
            )

    @property
    def _what(self) -> str:
        return f"model {printable(str(self.model.config.name_or_path), 200)}"

    @property
    def is_encoder(self) -> bool:
        """Whether the model pools its states itself; otherwise the score is that of the last token."""
        return not hasattr(self.model, "score")

    @property
    def longest(self) -> int:
        """Length limit of a row, in tokens."""
        positions = rope.context(self.model.config) or _LONGEST
        return int(min(positions - self._unused_positions, self.tokenizer.model_max_length, _LONGEST))

    @property
    def _unused_positions(self) -> int:
        """RoBERTa and similar models number positions from their padding index + 1."""
        embeddings = getattr(self.model.base_model, "embeddings", None)
        padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
        return 0 if padding is None else int(padding) + 1

    def rows(self, texts: Sequence[str], *, special: bool = True) -> list[Row]:
        """Tokenise texts; a text that is too long loses its beginning, since the answer is at the end.

        A special token in a text is read as plain letters.

        Args:
            texts: whole dialogues.
            special: whether the tokenizer adds its begin token. False for text of a chat template, which
                writes special tokens itself; those in the user's texts are marked there (`template.marked`).
        """
        if special:
            ids = self.tokenizer(list(texts), split_special_tokens=True)["input_ids"]
        else:
            ids = [template.encode(self.tokenizer, text, (), writes_bos=True) for text in texts]
        return [{"input_ids": row[-self.longest :]} for row in ids]

    def pair_rows(self, humans: Sequence[str], answers: Sequence[str]) -> list[Row]:
        """Tokenise requests and answers for an encoder; texts that are too long lose their beginning."""
        self.tokenizer.truncation_side = "left"
        made = self.tokenizer(
            list(humans), list(answers), truncation="longest_first", max_length=self.longest,
            split_special_tokens=True,
        )  # fmt: skip
        keys = [key for key in ("input_ids", "token_type_ids") if key in made]
        return [{key: made[key][i] for key in keys} for i in range(len(humans))]

    def windows(self, texts: Sequence[str]) -> tuple[list[Row], list[int]]:
        """Tokenise single texts; a text that is too long becomes several rows that overlap by half.

        A special token in a text is read as plain letters.

        Returns:
            Rows, and for each row the number of its text. Every token of a text is in at least one of its
            rows.
        """
        room = self.longest - self.tokenizer.num_special_tokens_to_add()
        made = self.tokenizer(
            list(texts), truncation=True, max_length=self.longest, stride=room // 2,
            return_overflowing_tokens=True, split_special_tokens=True,
        )  # fmt: skip
        keys = [key for key in ("input_ids", "token_type_ids") if key in made]
        rows = [{key: made[key][i] for key in keys} for i in range(len(made["input_ids"]))]
        return rows, list(made["overflow_to_sample_mapping"])

    def scores(self, rows: Sequence[Row]) -> Tensor:
        """Return the first output of each row, float32 [n], with gradient."""
        return self.logits(rows)[:, 0]

    def logits(self, rows: Sequence[Row]) -> Tensor:
        """Return all outputs of each row, float32 [n, outputs], with gradient.

        Rows do not affect each other.
        """
        if len(rows) > 1 and rope.apart(self.model.config):
            return torch.cat([self.logits([row]) for row in rows])
        device = self.model.device
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        pads = {"input_ids": self.tokenizer.pad_token_id or 0}
        inputs = {
            key: torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(row[key]) for row in rows], batch_first=True, padding_value=pads.get(key, 0)
            ).to(device)
            for key in rows[0]
        }
        inputs["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long().to(device)
        with limits.used(self._what):
            if self.is_encoder:
                outputs: Tensor = self.model(**inputs).logits
                return outputs.float()
            hidden = self.model.base_model(**inputs).last_hidden_state
            last = hidden[torch.arange(len(rows), device=device), (lengths - 1).to(device)]
            outputs = self.model.score(last)
            return outputs.float()
