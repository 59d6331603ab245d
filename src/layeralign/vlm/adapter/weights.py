"""An adapter's weights in the layers that PEFT made for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def insert(wrapped: Any, weights: Mapping[str, Tensor]) -> list[str]:
    """Put an adapter's weights into a model.

    PEFT renames them as transformers renames a checkpoint's weights. Some of these rules change a name that
    is right already, such as `shared_experts` into `mlp.shared_experts`. So names that the model has are
    left as they are.

    Args:
        wrapped: PEFT's model, with empty layers for the adapter.
        weights: The weights by their names in the adapter's file; each on the CPU.

    Returns:
        The names that do not match: layers without weights, and weights without a layer.
    """
    from peft import set_peft_model_state_dict

    layers = [name for name, _ in wrapped.named_parameters() if ".lora_" in name]
    own = {"".join(name.rsplit(".default", 1)): name for name in layers}
    if set(weights) != set(own):
        report: Any = set_peft_model_state_dict(wrapped, dict(weights), low_cpu_mem_usage=True)
        return [key for key in report.missing_keys if "lora_" in key] + list(report.unexpected_keys)
    wrapped.load_state_dict(
        {own[name]: weight for name, weight in weights.items()}, strict=False, assign=True
    )
    for module in wrapped.modules():
        if hasattr(module, "lora_A"):
            module._move_adapter_to_device_of_base_layer("default")
    return []
