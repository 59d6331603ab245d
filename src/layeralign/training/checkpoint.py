"""A training on disk, at one step: adapter, value head, optimiser, exit weights. One file, no pickle.

Random states are not in it because there are none: every draw is a function of (seed, step). So are the
learning rate and the place in the cases; η does not change.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from layeralign._util.files import atomic
from layeralign.errors import LayeralignError
from layeralign.training.exit_mix import ExitMix
from layeralign.training.policy import Policy

FILE = "checkpoint.safetensors"


@dataclass(frozen=True)
class Training:
    """What changes while a model is trained."""

    policy: Policy
    optimizer: Optimizer
    mix: ExitMix


def save(folder: Path, training: Training, step: int) -> None:
    """Write the state after `step` steps, atomically: a kill leaves the old file or the new one."""
    tensors = {f"policy/{name}": tensor for name, tensor in training.policy.state().items()}
    for name, parameter in training.policy.trainable().items():
        for key, value in training.optimizer.state[parameter].items():
            tensors[f"optimizer/{key}/{name}"] = torch.as_tensor(value).detach().cpu().clone()
    tensors["mix"] = torch.from_numpy(training.mix.state())
    with atomic(folder / FILE) as draft:
        save_file(tensors, draft, metadata={"step": json.dumps(step)})


def exists(folder: Path) -> bool:
    """Whether a training in `folder` has taken a step."""
    return (folder / FILE).exists()


def restore(folder: Path, training: Training) -> int:
    """Take over the state in `folder`; returns its step, 0 where there is none.

    Raises:
        LayeralignError: the file is broken, or of another model.
    """
    file = folder / FILE
    if not file.exists():
        return 0
    try:
        with safe_open(file, framework="pt") as opened:
            step = int(json.loads(opened.metadata()["step"]))
            tensors: dict[str, Tensor] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        training.policy.restore(_part(tensors, "policy/"))
        parameters = training.policy.trainable()
        training.optimizer.state.clear()
        for place, value in _part(tensors, "optimizer/").items():
            key, name = place.split("/", 1)
            parameter = parameters[name]
            training.optimizer.state[parameter][key] = value if key == "step" else value.to(parameter)
        training.mix.restore(tensors["mix"].numpy().astype(np.float64))
    except (SafetensorError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise LayeralignError(
            f"checkpoint {file}: cannot be used ({type(error).__name__}); remove it to start anew"
        ) from error
    return step


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
