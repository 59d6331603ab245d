"""A training's state at one step, on disk: parameters, optimiser, exit weights. One file, no pickle.

There are no random states: every draw is a function of (seed, step), and so is the learning rate.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from layeralign._util.files import atomic, saving
from layeralign.errors import LayeralignError
from layeralign.training.data.exit_mix import ExitMix
from layeralign.training.state.record import CHECKPOINT, compare

FILE = CHECKPOINT


@dataclass(frozen=True)
class State:
    """The variable parts of a training: parameters by name, their optimiser, and the mix of `align`."""

    parameters: Mapping[str, nn.Parameter]
    optimizer: Optimizer
    mix: ExitMix | None = None


def save(file: Path, state: State, step: int, made: Mapping[str, Any] | None = None) -> None:
    """Write the state after `step` steps atomically, with the record `made` of the training, if given."""
    tensors = {}
    for name, parameter in state.parameters.items():
        tensors[f"policy/{name}"] = _copy(parameter)  # reward models have the same prefix
        for key, value in state.optimizer.state[parameter].items():
            tensors[f"optimizer/{key}/{name}"] = _copy(torch.as_tensor(value))
    if state.mix is not None:
        tensors["mix"] = torch.from_numpy(state.mix.state())
    about = json.loads(json.dumps({"step": step} | ({"made": dict(made)} if made else {})))
    about["sha256"] = _hash(tensors, about)
    with atomic(file) as draft, saving(f"out {file}:"):  # one entry: safetensors writes several in any order
        save_file(tensors, draft, metadata={"about": json.dumps(about)})


def restore(file: Path, state: State, made: Mapping[str, Any] | None = None) -> int:
    """Set the state to that in `file`; return its number of steps, 0 without a file.

    Raises:
        LayeralignError: the file is broken, or belongs to another model or training.
    """
    if not file.exists():
        return 0
    try:
        with safe_open(file, framework="pt") as opened:
            about = json.loads(opened.metadata()["about"])
            tensors: dict[str, Tensor] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if about.pop("sha256") != _hash(tensors, about):
            raise ValueError("damaged")
        if made is not None:
            compare(file.parent, about["made"], made)
        with torch.no_grad():
            for name, parameter in state.parameters.items():
                parameter.copy_(tensors[f"policy/{name}"])
        state.optimizer.state.clear()
        for place, value in tensors.items():
            part, _, rest = place.partition("/")
            if part == "optimizer":
                key, name = rest.split("/", 1)
                parameter = state.parameters[name]
                state.optimizer.state[parameter][key] = value if key == "step" else value.to(parameter)
        if state.mix is not None:
            state.mix.restore(tensors["mix"].numpy().astype(np.float64))
        return int(about["step"])
    except (SafetensorError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise LayeralignError(
            f"checkpoint {file}: is damaged, or of another model or version ({type(error).__name__}); "
            "remove it to start again"
        ) from error


def _hash(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the tensors and of what is known about them: safetensors has none."""
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name}: {tensor.dtype} {list(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone().contiguous()
