"""Settings of a scan: flags, YAML keys and Python arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter

from layeralign.cases import background
from layeralign.cases.case import Case
from layeralign.cases.pictures import on_background
from layeralign.decode.decoding import Decoding
from layeralign.errors import LayeralignError

T = TypeVar("T")


@Parameter(name="*")
@dataclass(frozen=True)
class ScanSettings:
    """Settings of a scan. The help of each flag is the field's documentation, here or in `Decoding`."""

    exits: Annotated[str, Parameter(allow_leading_hyphen=True)] = "all"
    """Exits to scan: all, default, early, middle, late, embedding, numbers and ranges, separated by commas
    (`early,18,20-24`)."""
    decoding: Annotated[Decoding, Parameter(name="*")] = field(default_factory=Decoding)
    seed: int = 0
    """Seed of sampling and of benchmarks that are drawn."""
    batch_size: int | None = None
    """Maximum number of answers that are generated together; by default as many as fit into memory."""
    samples: int = 1
    """Answers per case and exit; more than 1 needs a temperature above 0."""
    precision: float | None = None
    """Half-width of the ASR's interval, above 0, at which the scan of an exit stops; it also stops if the ASR
    surely differs from the default exit's. By default every case is asked."""
    background: str = "white"
    """Colour behind transparent pictures: white, black, or #rrggbb."""

    def __post_init__(self) -> None:
        """Check the settings."""
        background.parse(self.background)
        for name in ("batch_size", "samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise LayeralignError(f"{name} {value}: expected at least 1")
        if self.samples > 1 and not self.decoding.temperature:
            raise LayeralignError(
                f"samples {self.samples}: greedy answers do not differ; expected 1, or a temperature above 0"
            )

    @classmethod
    def of(cls, **settings: Any) -> ScanSettings:
        """Settings from flat names, those of this class and of `Decoding`.

        Raises:
            LayeralignError: A name is unknown, or a value is invalid.
        """
        decoding = {one.name for one in fields(Decoding)}
        own = {one.name for one in fields(cls)} - {"decoding"}
        if unknown := sorted(settings.keys() - decoding - own):
            known = ", ".join(sorted(decoding | own))
            raise LayeralignError(f"{unknown[0]}: is not a setting of a scan; expected one of {known}")
        flat = dict(settings)
        if not isinstance(exits := flat.get("exits", "all"), str):
            flat["exits"] = ",".join(map(str, [exits] if isinstance(exits, int) else exits))
        return cls(
            decoding=Decoding(**{name: value for name, value in flat.items() if name in decoding}),
            **{name: value for name, value in flat.items() if name in own},
        )

    def record(self) -> dict[str, Any]:
        """The settings that affect an answer, for the run's identity."""
        made = {"decoding": self.decoding.record(), "seed": self.seed}
        return made | background.identity(self.background)

    def on_background(self, cases: Sequence[Case]) -> list[Case]:
        """Set the background of the cases' pictures."""
        return on_background(cases, background.parse(self.background))


def names_settings(function: Callable[..., T]) -> Callable[..., T]:
    """Add the scan's settings to the function's signature, for help(), editors and the docs."""
    return _names(function, ScanSettings, Decoding)


def names_decoding(function: Callable[..., T]) -> Callable[..., T]:
    """Add the settings of decoding to the function's signature."""
    return _names(function, Decoding)


def _names(function: Callable[..., T], *settings: type[ScanSettings] | type[Decoding]) -> Callable[..., T]:
    own = [
        one
        for one in inspect.signature(function).parameters.values()
        if one.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    named = [
        inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default)
        for kind in settings
        for one in fields(kind)
        if one.name != "decoding"
    ]
    function.__signature__ = inspect.Signature([*own, *named])  # type: ignore[attr-defined]
    return function
