"""Find, measure and close the early-exit hole in vision-language models.

`layeralign.load("testbed")` loads a model, `layeralign.scan(model, "testbed", out="out/run")` scans
it at every exit; what that gives has a table, a plot and a page. Every command is a function of this package.
"""

from __future__ import annotations

import warnings as _warnings
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from layeralign.errors import LayeralignError

if TYPE_CHECKING:
    from layeralign.api import (
        Scan,
        across,
        align,
        calibrate,
        card,
        cases,
        check,
        compare,
        doctor,
        export,
        figure,
        gate,
        inspect,
        judge,
        label,
        load,
        plan,
        read,
        report,
        reward,
        scan,
        screen,
        serve,
        summary,
        to_datasets,
        to_pandas,
        to_polars,
        verify,
        watch,
    )
    from layeralign.studies.demo import demo
    from layeralign.studies.transfer import transfer

__all__ = [
    "LayeralignError", "Scan", "across", "align", "calibrate", "card", "cases", "check", "compare", "demo",
    "doctor", "export", "figure", "gate", "inspect", "judge", "label", "load", "plan", "read", "report",
    "reward", "scan", "screen", "serve", "summary", "to_datasets", "to_pandas", "to_polars", "transfer",
    "verify", "watch",
]  # fmt: skip
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load the API when it is first used: it takes seconds to import torch."""
    if name in __all__:
        module = f"layeralign.studies.{name}" if name in ("demo", "transfer") else "layeralign.api"
        with _warnings.catch_warnings():
            _warnings.filterwarnings(
                "ignore", "IProgress not found"
            )  # of tqdm in a notebook; our bars need none
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'layeralign' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, also those that are loaded when they are used, and loaded subpackages."""
    loaded = (name for name, value in globals().items() if isinstance(value, ModuleType))
    return sorted({*__all__, *loaded, "__version__", "__doc__", "__all__"} - {"_warnings"})


class _Verb(ModuleType):
    """A package that has the name of a function: a call of the package calls the function."""

    @property
    def _function(self) -> Any:
        return getattr(import_module("layeralign.api"), self.__name__.rpartition(".")[2])

    @property
    def __signature__(self) -> Any:
        from inspect import signature  # 20 ms, in which Ctrl-C would still be a traceback

        return signature(self._function)

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        return self._function(*arguments, **settings)


for _name in ("cases", "report"):  # light packages, which import nothing
    import_module(f"layeralign.{_name}").__class__ = _Verb
