"""An untrusted adapter_config.json: only known fields with plain values reach PEFT.

Other fields can make PEFT import a module (`megatron_core`), change the model's own weights (`eva_config`,
`layer_replication`) or run for hours (a pattern).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from safetensors import SafetensorError, safe_open

from layeralign._util import bounded
from layeralign._util.text import printable
from layeralign._util.validation import Record, Share, validated
from layeralign.errors import LayeralignError
from layeralign.vlm.checkpoint import Adapter, read_json
from layeralign.vlm.limits import shape_of

if TYPE_CHECKING:
    from peft import LoraConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_SECONDS = 2.0
"""Time that a pattern may take on all module names together; it is tried out in a child process first."""


_TENSORS = 100_000
"""Most tensors of an adapter; PEFT takes a while for each."""

_NUMBERS = ("F32", "F16", "BF16", "F64")
"""Formats of an adapter's numbers."""
Name = Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=500)]
_MOST = 1_000
"""Most names of a field, since PEFT matches each with each module."""
Names = Annotated[list[Name], Field(max_length=_MOST)]
Rank = Annotated[int, Field(ge=1)]


class _Fields(Record):
    """The fields that reach PEFT; PEFT's default stands for a field that is not given."""

    r: Rank = Field(8, description="a whole number from 1")
    lora_alpha: float = Field(8, description="a number")
    lora_dropout: Share = Field(0.0, description="a number from 0 to 1")
    target_modules: list[Name] | Annotated[str, Field(max_length=2000)] | None = Field(
        None, description="names or a pattern"
    )
    exclude_modules: Names | None = Field(None, description="names")
    bias: Literal["none", "all", "lora_only"] = Field("none", description="none, all or lora_only")
    fan_in_fan_out: bool = Field(False, description="true or false")
    use_rslora: bool = Field(False, description="true or false")
    use_dora: bool = Field(False, description="true or false")
    lora_bias: bool = Field(False, description="true or false")
    modules_to_save: Names | None = Field(None, description="names")
    layers_to_transform: list[int] | int | None = Field(None, description="numbers of layers")
    layers_pattern: Annotated[list[Name], Field(max_length=20)] | Name | None = Field(
        None, description="names"
    )
    rank_pattern: dict[Name, Rank] = Field(
        {}, max_length=_MOST, description=f"whole numbers by name, of up to {_MOST} names"
    )
    alpha_pattern: dict[Name, float] = Field(
        {}, max_length=_MOST, description=f"numbers by name, of up to {_MOST} names"
    )


_READ_HERE = {
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
    "inference_mode", "init_lora_weights", "ensure_weight_tying",
}  # fmt: skip
"""Fields that do not reach PEFT: they are checked elsewhere, or matter in training only."""
_OFF: dict[str, object] = {
    "megatron_core": "megatron.core",
    "qalora_group_size": 16,
    "runtime_config": {"ephemeral_gpu_offload": False},
}
"""Values with which PEFT writes fields that are not used; for all others see `_unused`."""


def lora_config(adapter: Adapter, modules: Iterable[str]) -> LoraConfig:
    """Return PEFT's config of an adapter, made of allowed fields alone.

    Args:
        adapter: the adapter.
        modules: names of the model's modules, which a pattern in `target_modules` selects from.

    Raises:
        LayeralignError: a field or value is not allowed; the message names it.
    """
    from peft import LoraConfig

    given = read_json(adapter.path / CONFIG)
    for name, value in given.items():
        if name not in _Fields.model_fields and name not in _READ_HERE and not _unused(name, value):
            raise _refused(
                adapter, f"sets {printable(name, 60)}, which is not loaded; convert it to plain LoRA first"
            )
    named = {name: given[name] for name in _Fields.model_fields if given.get(name) is not None}
    fields = validated(_Fields, named, f"adapter {adapter.name}: {CONFIG}")
    _check_rank(adapter, max([fields.r, *fields.rank_pattern.values()]))
    known = fields.model_dump(exclude_unset=True)
    target = known.get("target_modules")
    if isinstance(target, str) and target != "all-linear":
        known["target_modules"] = _selected(adapter, target, modules)
    elif isinstance(target, list):
        known["target_modules"] = _there(adapter, target, modules)
    return LoraConfig(**known, inference_mode=True)


def _unused(name: str, value: object) -> bool:
    return value in (None, False, "", [], {}) or (name in _OFF and value == _OFF[name])


def _check_rank(adapter: Adapter, asked: int) -> None:
    """Refuse a rank above those of the weights, since memory is allocated for it."""
    try:
        with safe_open(adapter.path / WEIGHTS, framework="pt") as opened:
            if (tensors := len(opened.keys())) > _TENSORS:
                raise _refused(adapter, f"{WEIGHTS} has {tensors:,} tensors; the limit is {_TENSORS:,}")
            found = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - not a dict
            shapes = {name: _shape(adapter, one) for name, one in found.items()}
            most = max(
                (min(shape, default=0) for name, shape in shapes.items() if "lora_" in name), default=0
            )
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        raise _refused(adapter, f"{WEIGHTS} cannot be read ({printable(str(error), 100)})") from error
    if asked > most:
        raise _refused(adapter, f"has rank {_shown(asked)}, and its weights have at most {most}")


def _shape(adapter: Adapter, tensor: Any) -> list[int]:
    """Return a tensor's shape; refuse numbers that PEFT or torch cannot compute with."""
    if tensor.get_dtype() not in _NUMBERS:
        kinds = " or ".join(_NUMBERS)
        raise _refused(adapter, f"{WEIGHTS} holds numbers of {tensor.get_dtype()}; expected {kinds}")
    return shape_of(tensor)


def _selected(adapter: Adapter, pattern: str, modules: Iterable[str]) -> list[str]:
    """Return the modules that match a pattern as a whole, as PEFT would select them."""
    import regex  # type: ignore[import-untyped]  # unlike re, it can be stopped

    def match() -> list[str]:
        end, compiled = time.monotonic() + _SECONDS, regex.compile(pattern)
        return [m for m in names if compiled.fullmatch(m, timeout=max(0.001, end - time.monotonic()))]

    names = list(modules)
    if why := bounded.excess(match):
        raise _refused(adapter, f"target_modules {_shown(pattern)} {why}")
    try:
        found = match()
    except (regex.error, TimeoutError, RecursionError) as error:
        why = "takes too long" if isinstance(error, TimeoutError) else "is not a pattern"
        raise _refused(adapter, f"target_modules {_shown(pattern)} {why}") from error
    if not found:
        raise _refused(adapter, f"target_modules {_shown(pattern)} selects no module of this model")
    return found


def _there(adapter: Adapter, names: list[str], modules: Iterable[str]) -> list[str]:
    """Return the names that some module has, or ends with after a dot; PEFT would try each of the others."""
    parts = [module.split(".") for module in modules]
    ends = {".".join(part[at:]) for part in parts for at in range(len(part))}
    if not (found := [name for name in dict.fromkeys(names) if name in ends]):
        raise _refused(adapter, f"target_modules {_shown(names)} selects no module of this model")
    return found


def _refused(adapter: Adapter, why: str) -> LayeralignError:
    return LayeralignError(f"adapter {adapter.name}: {CONFIG}: {why}")


def _shown(value: object) -> str:
    return printable(repr(value), 60)
