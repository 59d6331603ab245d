"""A picture's features at an exit, as the language model reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Feature:
    """A picture's features at an exit, as input of the language model.

    Attributes:
        tokens: Features, [picture tokens, text width], in the model's dtype.
        text: Text that replaces the picture's placeholder in a prompt.
        extras: Further inputs of this family's language model for the picture.
    """

    tokens: Tensor
    text: str
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Size of all tensors, in bytes."""
        return self.tokens.nbytes + sum(extra.nbytes for extra in self.extras.values())

    def clone(self) -> Feature:
        """A copy that does not keep the memory of other pictures alive."""
        extras = {name: extra.clone() for name, extra in self.extras.items()}
        return Feature(self.tokens.clone(), self.text, extras)
