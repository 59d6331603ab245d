"""Find, measure and close the early-exit hole in vision-language models.

`layeralign.load("testbed")` loads a model, `layeralign.scan(model, "testbed", out="out/run")` scans
it at every exit; what that gives has a table, a plot and a page.
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
        doctor,
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
    "LayeralignError", "Scan", "across", "align", "check", "compare", "doctor", "gate", "judge", "load",
    "read", "scan", "screen", "to_datasets", "to_pandas", "to_polars",
]  # fmt: skip
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load the API when it is first used: it takes seconds to import torch."""
    if name in __all__:
        return getattr(import_module("layeralign.api"), name)
    raise AttributeError(f"module 'layeralign' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What is loaded when it is used is there before, too."""
    return sorted({*globals(), *__all__})
