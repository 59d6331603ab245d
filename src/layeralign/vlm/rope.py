"""Rotary embeddings that depend on the longest row of a batch, so that rows must be separated.

Most rotary embeddings depend only on a token's position. Two of transformers' do not (`dynamic_rope_update`
in `modeling_rope_utils`). `dynamic` (NTK) scales its frequencies by the longest row once that exceeds the
trained length, and keeps that scale afterwards; `longrope` switches to other factors there. In a batch, the
longest row determines the embeddings of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

Regime = Literal["short", "long", "alone"]
"""Rows of one regime can share a batch; a row with regime `alone` needs a batch of its own."""


@dataclass(frozen=True)
class Rope:
    """Rotary embeddings that depend on the longest row.

    Attributes:
        type: `dynamic` or `longrope`.
        length: Largest length, in tokens, at which they do not depend on it.
    """

    type: str
    length: int

    def regime(self, prompt: int, longest: int) -> Regime:
        """The regime of a row.

        Args:
            prompt: Length of its prompt, in tokens.
            longest: Length limit of its answer, in tokens.
        """
        if prompt + longest <= self.length:
            return "short"
        return "long" if self.type == "longrope" and prompt > self.length else "alone"


def context(config: Any) -> int | None:
    """The largest number of tokens by a language model's config; None if it gives none of 2 or more."""
    length = getattr(config, "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 1 else None


def find(config: Any) -> Rope | None:
    """Read a language model's config; None if rows never depend on each other.

    If layers have different embeddings, the strictest one counts.
    """
    own = getattr(config, "rope_parameters", None) or {}
    layers = [own] if "rope_type" in own else [layer for layer in own.values() if isinstance(layer, dict)]
    found = []
    for layer in layers:
        kind = str(layer.get("rope_type"))
        if "dynamic" in kind:
            found.append(Rope("dynamic", int(config.max_position_embeddings)))
        elif kind == "longrope":
            found.append(Rope("longrope", int(layer["original_max_position_embeddings"])))
    return min(found, key=lambda rope: (rope.length, rope.type), default=None)


def apart(config: Any) -> bool:
    """Whether rows should be read one by one, for callers that ignore regimes."""
    return find(config.get_text_config()) is not None


def reset(model: nn.Module) -> None:
    """Reset the scale that an earlier, longer row left in a model's `dynamic` embeddings."""
    for module in model.modules():
        if not hasattr(module, "original_max_seq_len"):
            continue
        for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
            setattr(module, name, module.original_max_seq_len)
        for name, original in list(module.named_buffers(recurse=False)):
            if name.endswith("original_inv_freq"):
                getattr(module, name.replace("original_", "")).copy_(original)
