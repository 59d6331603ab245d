"""A sequence classifier with one output: from texts to one number each.

Decoders (GPT-2, Llama, ...: transformers names their head `score`) read one text and are scored at
its last token, found from its length and never from pad ids, which can be real tokens too (GPT-2
pads with its end token). Encoders (BERT, DeBERTa, ...) read request and answer as a pair of texts
and pool by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Row = dict[str, list[int]]
"""Token ids (`input_ids`) of one text, and `token_type_ids` where the model is an encoder."""


@dataclass(frozen=True)
class Classifier:
    """A `*ForSequenceClassification` with one output, and its tokenizer."""

    model: Any
    names: Any

    @property
    def is_encoder(self) -> bool:
        """Whether the model pools by itself instead of being read at the last token."""
        return not hasattr(self.model, "score")

    @property
    def longest(self) -> int:
        """Longest row, in tokens."""
        positions = getattr(self.model.config, "max_position_embeddings", None)
        return int(min(positions or self.names.model_max_length, self.names.model_max_length))

    def rows(self, texts: Sequence[str], *, special: bool = True) -> list[Row]:
        """Tokenise texts; of one that is too long the end is kept, where the answer is.

        Args:
            texts: whole dialogues.
            special: let the tokenizer add its begin token; not for text of a chat template.
        """
        ids = self.names(list(texts), add_special_tokens=special)["input_ids"]
        return [{"input_ids": row[-self.longest :]} for row in ids]

    def pair_rows(self, humans: Sequence[str], answers: Sequence[str]) -> list[Row]:
        """Tokenise requests and answers for an encoder; too long ones lose their beginnings."""
        self.names.truncation_side = "left"
        made = self.names(list(humans), list(answers), truncation="longest_first", max_length=self.longest)
        kept = [key for key in ("input_ids", "token_type_ids") if key in made]
        return [{key: made[key][i] for key in kept} for i in range(len(humans))]

    def scores(self, rows: Sequence[Row]) -> Tensor:
        """One number per row, float32 [n], with gradient; a row's does not depend on the others."""
        device = self.model.device
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        pads = {"input_ids": self.names.pad_token_id or 0}
        inputs = {
            key: torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(row[key]) for row in rows], batch_first=True, padding_value=pads.get(key, 0)
            ).to(device)
            for key in rows[0]
        }
        inputs["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long().to(device)
        if self.is_encoder:
            scores: Tensor = self.model(**inputs).logits[:, 0]
            return scores.float()
        hidden = self.model.base_model(**inputs).last_hidden_state
        last = hidden[torch.arange(len(rows), device=device), (lengths - 1).to(device)]
        scores = self.model.score(last)[:, 0]
        return scores.float()
