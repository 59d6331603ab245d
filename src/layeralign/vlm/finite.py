"""Numerical failure: NaN and infinity must never be counted as a model's behaviour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from layeralign.errors import LayeralignError

if TYPE_CHECKING:
    from torch import Tensor


def check_weights(weights: Mapping[str, Tensor], what: str) -> None:
    """Refuse weights that are not finite.

    Args:
        weights: Name -> tensor; integers and tensors on torch's meta device are not checked.
        what: Owner of the weights for the message, such as `model NAME`.

    Raises:
        LayeralignError: Some weights have NaN or infinity.
    """
    broken = [name for name, tensor in weights.items() if not _finite(tensor)]
    if broken:
        dtypes = {str(weights[name].dtype).removeprefix("torch.") for name in broken}
        raise LayeralignError(
            f"{what}: {len(broken)} of its weights have NaN or infinity ({' and '.join(sorted(dtypes))}), "
            f"such as {broken[0]}; {advice(dtypes)}"
        )


def _finite(tensor: Tensor) -> bool:
    import torch  # imported here, since reports use this module without torch

    if not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
        return True
    # aminmax propagates NaN, reads the tensor once and copies nothing
    return bool(torch.stack(tensor.aminmax()).isfinite().all())


def advice(dtypes: Iterable[str]) -> str:
    """Advice to the user after a numerical failure in these dtypes."""
    if "float16" in dtypes:
        return "float16 has no numbers above 65,504, so try bfloat16 or float32"
    return "the file is corrupt, or its training diverged"


def failure(vlm: Any, exits: Iterable[str]) -> LayeralignError:
    """The error for a model with non-finite logits.

    Args:
        vlm: A `Vlm`.
        exits: Names of the affected exits.
    """
    dtype = str(vlm.model.dtype).removeprefix("torch.")
    return LayeralignError(
        f"model {vlm.name}: numerical failure: its logits are not finite at {listed(exits)} ({dtype}); "
        f"{advice([dtype])}"
    )


def listed(exits: Iterable[str]) -> str:
    """Format names of exits: `exit 3`, or `exits 2, 3`."""
    names = list(exits)
    return f"{'exit' if len(names) == 1 else 'exits'} {', '.join(names)}"
