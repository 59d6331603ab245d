"""Rotary embeddings that look at the longest row of a batch, so that rows must be kept apart.

Most rotary embeddings are a function of a token's position. Two of transformers' are not
(`dynamic_rope_update` in `modeling_rope_utils`): `dynamic` (NTK) scales its frequencies by the longest row
once that passes the trained length, and keeps that scale for what follows; `longrope` changes to other
factors there. In a batch every row gets what the longest one asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

Regime = Literal["short", "long", "alone"]
"""Rows of one regime can be read and answered beside each other; `alone` is each by itself."""


@dataclass(frozen=True)
class Rope:
    """Where a model's rotary embeddings begin to depend on the longest row.

    Attributes:
        type: `dynamic` or `longrope`.
        length: tokens up to which they do not.
    """

    type: str
    length: int

    def regime(self, prompt: int, longest: int) -> Regime:
        """Which rows a row can be beside.

        Args:
            prompt: tokens of its prompt.
            longest: tokens that its answer can have.
        """
        if prompt + longest <= self.length:
            return "short"
        return "long" if self.type == "longrope" and prompt > self.length else "alone"


def find(config: Any) -> Rope | None:
    """What the config of a language model says; None where rows never depend on each other.

    Where layers differ in their embeddings, the strictest of them counts.
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
    """Whether rows are best read one by one: for callers that do not look at regimes."""
    return find(config.get_text_config()) is not None


def reset(model: nn.Module) -> None:
    """Forget the scale that an earlier, longer row left in a model's `dynamic` embeddings."""
    for module in model.modules():
        if not hasattr(module, "original_max_seq_len"):
            continue
        for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
            setattr(module, name, module.original_max_seq_len)
        for name, original in list(module.named_buffers(recurse=False)):
            if name.endswith("original_inv_freq"):
                getattr(module, name.replace("original_", "")).copy_(original)
