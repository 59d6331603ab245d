"""Numerical failure: NaN and infinity, which are no behaviour of a model and must never be counted as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from layeralign.errors import LayeralignError

if TYPE_CHECKING:
    from torch import Tensor


def check_weights(weights: Mapping[str, Tensor], what: str) -> None:
    """Refuse weights that are not finite numbers.

    Args:
        weights: name -> tensor; integers, and what is not in memory (torch's meta device), are not looked at.
        what: whose they are, as `model NAME`, for the message.

    Raises:
        LayeralignError: some hold NaN or infinity.
    """
    broken = [name for name, tensor in weights.items() if not _finite(tensor)]
    if broken:
        dtypes = {str(weights[name].dtype).removeprefix("torch.") for name in broken}
        raise LayeralignError(
            f"{what}: {len(broken)} of its weights have NaN or infinity ({' and '.join(sorted(dtypes))}), "
            f"such as {broken[0]}; {advice(dtypes)}"
        )


def _finite(tensor: Tensor) -> bool:
    import torch  # here, since reports use the texts below and need no torch

    if not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
        return True
    return bool(
        torch.stack(tensor.aminmax()).isfinite().all()
    )  # aminmax lets NaN through; reads once, copies nothing


def advice(dtypes: Iterable[str]) -> str:
    """What a user can try."""
    if "float16" in dtypes:
        return "float16 has no numbers above 65,504, so try bfloat16 or float32"
    return "the file is corrupt, or its training diverged"


def failure(vlm: Any, exits: Iterable[str]) -> LayeralignError:
    """What a user is told whose model gave logits that are not finite.

    Args:
        vlm: a `Vlm`.
        exits: names of the exits where it did.
    """
    dtype = str(vlm.model.dtype).removeprefix("torch.")
    return LayeralignError(
        f"model {vlm.name}: numerical failure: its logits are not finite at {listed(exits)} ({dtype}); "
        f"{advice([dtype])}"
    )


def listed(exits: Iterable[str]) -> str:
    """`exit 3`, or `exits 2, 3`."""
    names = list(exits)
    return f"{'exit' if len(names) == 1 else 'exits'} {', '.join(names)}"
