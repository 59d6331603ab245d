"""An untrusted adapter_config.json: only known fields with plain values reach PEFT.

Other fields can make PEFT import a module (`megatron_core`), change the model's own weights (`eva_config`,
`layer_replication`) or run for hours (a pattern).
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.vlm.checkpoint import Adapter, read_json

if TYPE_CHECKING:
    from peft import LoraConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_SECONDS = 5.0
"""Time that a pattern may take on all module names together."""
_PLAIN = re.compile(r"[\w.-]{1,500}")


def _names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(x, str) and _PLAIN.fullmatch(x) for x in value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _by_name(of: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and _names([*value]) and all(map(of, value.values()))


def _switch(value: object) -> bool:
    return isinstance(value, bool)


_FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "r": (_whole, "a whole number from 1"),
    "lora_alpha": (_number, "a number"),
    "lora_dropout": (lambda x: _number(x) and 0 <= float(str(x)) <= 1, "a number from 0 to 1"),
    "target_modules": (lambda x: _names(x) or (isinstance(x, str) and len(x) <= 2000), "names or a pattern"),
    "exclude_modules": (_names, "names"),
    "bias": (lambda x: x in ("none", "all", "lora_only"), "none, all or lora_only"),
    "fan_in_fan_out": (_switch, "true or false"),
    "use_rslora": (_switch, "true or false"),
    "use_dora": (_switch, "true or false"),
    "lora_bias": (_switch, "true or false"),
    "modules_to_save": (_names, "names"),
    "layers_to_transform": (
        lambda x: _whole(x) or x == 0 or (isinstance(x, list) and all(isinstance(i, int) for i in x)),
        "numbers of layers",
    ),
    "layers_pattern": (lambda x: _names(x if isinstance(x, list) else [x]), "names"),
    "rank_pattern": (_by_name(_whole), "whole numbers by name"),
    "alpha_pattern": (_by_name(_number), "numbers by name"),
}
"""Field -> whether a value is allowed, and what is expected. None stands for PEFT's default."""
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
        if name in _FIELDS:
            allowed, expected = _FIELDS[name]
            if value is not None and not allowed(value):
                raise _refused(adapter, f"{name} is {_shown(value)}; expected {expected}")
        elif name not in _READ_HERE and not _unused(name, value):
            raise _refused(
                adapter, f"sets {printable(name, 60)}, which is not loaded; convert it to plain LoRA first"
            )
    known = {name: given[name] for name in _FIELDS if given.get(name) is not None}
    _check_ranks(adapter, known)
    if isinstance(target := known.get("target_modules"), str) and target != "all-linear":
        known["target_modules"] = _selected(adapter, target, modules)
    return LoraConfig(**known, inference_mode=True)


def _unused(name: str, value: object) -> bool:
    return value in (None, False, "", [], {}) or (name in _OFF and value == _OFF[name])


def _check_ranks(adapter: Adapter, known: dict[str, Any]) -> None:
    """Refuse a rank above those of the weights, since memory is allocated for it."""
    try:
        with safe_open(adapter.path / WEIGHTS, framework="pt") as opened:
            names = [name for name in opened.keys() if "lora_" in name]  # noqa: SIM118 - not a dict
            most = max((min(opened.get_slice(name).get_shape(), default=0) for name in names), default=0)
    except (SafetensorError, OSError) as error:
        raise _refused(adapter, f"{WEIGHTS} cannot be read ({printable(str(error), 100)})") from error
    asked = max([known.get("r", 8), *known.get("rank_pattern", {}).values()])
    if asked > most:
        raise _refused(adapter, f"has rank {_shown(asked)}, and its weights have at most {most}")


def _selected(adapter: Adapter, pattern: str, modules: Iterable[str]) -> list[str]:
    """Return the modules that match a pattern as a whole, as PEFT would select them."""
    import regex  # type: ignore[import-untyped]  # unlike re, it can be stopped

    end = time.monotonic() + _SECONDS
    try:
        compiled = regex.compile(pattern)
        found = [m for m in modules if compiled.fullmatch(m, timeout=max(0.001, end - time.monotonic()))]
    except (regex.error, TimeoutError, RecursionError) as error:
        why = "takes too long" if isinstance(error, TimeoutError) else "is not a pattern"
        raise _refused(adapter, f"target_modules {_shown(pattern)} {why}") from error
    if not found:
        raise _refused(adapter, f"target_modules {_shown(pattern)} selects no module of this model")
    return found


def _refused(adapter: Adapter, why: str) -> LayeralignError:
    return LayeralignError(f"adapter {adapter.name}: {CONFIG}: {why}")


def _shown(value: object) -> str:
    return printable(repr(value), 60)
