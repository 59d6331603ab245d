"""Find, measure and close the early-exit hole in vision-language models.

import layeralign
model = layeralign.load("testbed")
result = layeralign.scan(model, "testbed", out="out/run", limit=400, max_new_tokens=24)
result.plot("curve.svg")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from layeralign.errors import LayeralignError

if TYPE_CHECKING:
    from layeralign.api import (
        Scan,
        across,
        align,
        check,
        compare,
        gate,
        judge,
        load,
        read,
        scan,
        screen,
        to_datasets,
        to_pandas,
        to_polars,
    )  # fmt: skip

__all__ = [
    "LayeralignError", "Scan", "across", "align", "check", "compare", "gate", "judge", "load", "read", "scan",
    "screen", "to_datasets", "to_pandas", "to_polars",
]  # fmt: skip
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load the API when it is first used: it takes seconds to import torch."""
    if name in __all__:
        return getattr(import_module("layeralign.api"), name)
    raise AttributeError(f"module 'layeralign' has no attribute {name!r}")
