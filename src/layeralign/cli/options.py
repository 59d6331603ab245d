"""Flags that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from layeralign.vlm.vlm import Vlm

Runs = Annotated[list[Path], Parameter(consume_multiple=True)]
"""Folders of one or more runs."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model, and how it is loaded."""

    model: str
    "Checkpoint folder, hub id, or `testbed`."
    revision: str | None = None
    "Branch, tag or commit of a hub id."
    variant: str | None = None
    "How the family reads an exit, where it has several ways; see docs/families.md."
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    "Number format of the weights."
    device_map: str | None = None
    "Torch device, or auto, balanced or sequential; by default the GPU, if there is one."

    def load(
        self, adapter: Path | None = None, quantize: str | None = None, *, allow_base: bool = False
    ) -> Vlm:
        """Load the model."""
        from layeralign.api import load

        return load(
            self.model,
            adapter=adapter,
            allow_base=allow_base,
            revision=self.revision,
            variant=self.variant,
            dtype=self.dtype,
            device_map=self.device_map,
            quantize=quantize,
        )
