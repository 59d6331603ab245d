"""Cost of an encoder at each exit: parameters, FLOPs, and measured time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import nn

from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.vlm.tower import given_state
from layeralign.vlm.vlm import Vlm


@dataclass(frozen=True)
class ExitCost:
    """Cost of encoding with an exit.

    Attributes:
        exit: Number of the exit.
        name: Name of the exit, such as `18` or `local:18`.
        default: Whether it is the model's default exit.
        blocks: Number of blocks that run.
        parameters: Number of encoder parameters that are still needed.
        flops: FLOPs of one unit (see `Encoder.unit`), counting a multiplication and an addition as two; None
            if they cannot be counted, as in families that layeralign has no file for.
        share: `flops` divided by those of the default exit.
        seconds: Median time of one unit, in seconds; None if it was not measured.
    """

    exit: int
    name: str
    default: bool
    blocks: int
    parameters: int
    flops: int | None
    share: float | None
    seconds: float | None


@dataclass(frozen=True)
class Encoder:
    """A model's encoder and the cost of its exits.

    Attributes:
        model: The model's name.
        family: The model's family.
        variant: How the family reads "exit at l".
        revision: The hub's commit; None for a folder.
        encoder: Name of the encoder's class.
        at: Name of the encoder's module in the model.
        layers: Number of blocks of the main track.
        width: Width of the blocks' states; None if the config does not give it.
        default: Name of the default exit.
        unit: The input that costs refer to, such as a picture or a tile.
        encoder_parameters: Number of parameters of the encoder.
        projector_parameters: Number of parameters of the projector.
        language_parameters: Number of parameters of the language model.
        bytes: Size of the encoder's parameters in `dtype`.
        dtype: The config's dtype.
        timed_on: Machine, threads and dtype of the timing; None if nothing was timed.
        exits: Cost of every exit.
    """

    model: str
    family: str
    variant: str
    revision: str | None
    encoder: str
    at: str
    layers: int
    width: int | None
    default: str
    unit: str
    encoder_parameters: int
    projector_parameters: int
    language_parameters: int
    bytes: int
    dtype: str
    timed_on: str | None
    exits: tuple[ExitCost, ...]

    def to_json(self) -> dict[str, Any]:
        """The encoder as a JSON object; keys are never renamed, only added."""
        return asdict(self)


def encoder(vlm: Vlm) -> Encoder:
    """Count the cost of each exit; a model from `load.empty`, without weights, is enough.

    Raises:
        LayeralignError: The encoder cannot be built from the config.
    """
    try:
        return _anatomy(vlm)
    except LayeralignError:
        raise
    except Exception as error:  # an inconsistent config can raise anything
        reason = printable(str(error), 200) or type(error).__name__
        raise LayeralignError(
            f"model {vlm.checkpoint.name}: its encoder cannot be built from its config ({reason})"
        ) from error


def _anatomy(vlm: Vlm) -> Encoder:
    tower, exits = vlm.tower, vlm.exits
    total, everything = _parameters(tower), _parameters(vlm.model)
    language, head = sum(map(_parameters, vlm.language_parts)), vlm.head
    tied = head.weight is vlm.model.get_input_embeddings().weight
    language += 0 if tied else _parameters(head)
    dtype = vlm.model.config.dtype or torch.float32
    return Encoder(
        model=vlm.name,
        family=vlm.family,
        variant=vlm.variant,
        revision=vlm.checkpoint.revision,
        encoder=type(tower).__name__,
        at=vlm.path_of(tower),
        layers=exits.layers,
        width=getattr(tower.config, "hidden_size", None),
        default=exits.name(exits.default),
        unit=vlm.unit,
        encoder_parameters=total,
        projector_parameters=everything - language - total,
        language_parameters=language,
        bytes=total * dtype.itemsize,
        dtype=_name(dtype),
        timed_on=None,
        exits=tuple(_cost(vlm, exit, total) for exit in sorted({*exits.all, exits.default})),
    )


def _cost(vlm: Vlm, exit: int, total: int) -> ExitCost:
    work, of = flops(vlm, exit), flops(vlm, vlm.exits.default)
    return ExitCost(
        exit=exit,
        name=vlm.exits.name(exit),
        default=exit == vlm.exits.default,
        blocks=len(vlm.all_blocks) - len(vlm.unused_blocks(exit)),
        parameters=total - sum(map(_parameters, vlm.unused_parts(exit))),
        flops=work,
        share=None if work is None or not of else work / of,
        seconds=None,
    )


def record(vlm: Vlm) -> dict[str, Any]:
    """The encoder's cost as a run stores it: parameters of encoder and model, and FLOPs at each exit.

    `flops` maps exit -> `ExitCost.flops`, None if they cannot be counted.
    """
    exits = sorted({*vlm.exits.all, vlm.exits.default})
    return {
        "unit": vlm.unit,
        "encoder_parameters": _parameters(vlm.tower),
        "parameters": _parameters(vlm.model),
        "flops": {str(exit): flops(vlm, exit) for exit in exits},
    }


def timed(vlm: Vlm, found: Encoder, repeats: int = 5) -> Encoder:
    """Measure each exit's time for one unit, on this process's GPU or else the CPU.

    A model without weights gets a tower with random ones, which does not affect the time.

    Raises:
        LayeralignError: The encoder cannot be timed alone.
    """
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        seconds = _seconds(vlm, [cost.exit for cost in found.exits], place, repeats)
    except Exception as error:  # an unknown tower may need more than pixels
        reason = printable(str(error), 200) or type(error).__name__
        raise LayeralignError(
            f"model {vlm.checkpoint.name}: its encoder cannot be timed alone ({reason}); remove --time"
        ) from error
    costs = tuple(replace(cost, seconds=seconds[cost.exit]) for cost in found.exits)
    return replace(found, timed_on=f"{_machine(place)}, {_name(_DTYPE)}", exits=costs)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


_DTYPE = torch.float32


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def _without(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Context in which these blocks return their input."""

    def through(*args: Any, **kwargs: Any) -> Any:
        return given_state(args, kwargs)

    try:
        for block in blocks:
            block.forward = through
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)


def flops(vlm: Vlm, exit: int) -> int | None:
    """FLOPs of the patch embedding and the blocks up to an exit, for one `sample`; None if uncountable.

    From the shapes: 2 · states · weights for every linear layer, 4 · states · span · width for attention.
    Norms, activations, merger and projector are left out: they are small, or the same at every exit.
    """
    states = vlm.states
    if states is None:
        return None
    unused = {id(block) for block in vlm.unused_blocks(exit)}
    width = int(vlm.tower.config.hidden_size)
    convolutions = [m for m in vlm.tower.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    total = sum(2 * states * convolution.weight.numel() for convolution in convolutions)
    for number, block in enumerate(vlm.all_blocks):
        if id(block) not in unused:
            weights = sum(m.weight.numel() for m in block.modules() if isinstance(m, nn.Linear))
            total += 2 * states * weights + 4 * states * vlm.span(number, states) * width
    return total


@torch.no_grad()
def _seconds(vlm: Vlm, exits: Sequence[int], place: torch.device, repeats: int) -> dict[int, float]:
    """Exit -> median seconds; exits are measured in turn, so that a slow phase affects all."""
    if next(vlm.tower.parameters()).is_meta:  # weights do not affect the time
        with place:
            vlm.model.set_encoder(type(vlm.tower)(vlm.tower.config).eval(), modality="image")
    tower = vlm.tower.to(place, _DTYPE)
    sample = {name: value.to(place) for name, value in vlm.sample().items()}
    taken: dict[int, list[float]] = {exit: [] for exit in exits}
    for turn in range(repeats + 1):
        for exit in exits:
            with _without(vlm.unused_blocks(exit)):
                took = _timed(lambda: tower(**sample), place)
            if turn:  # the first is a warm-up
                taken[exit].append(took)
    return {exit: median(times) for exit, times in taken.items()}


def _timed(run: Callable[[], object], place: torch.device) -> float:
    if place.type == "cuda":
        torch.cuda.synchronize(place)
    start = time.perf_counter()
    run()
    if place.type == "cuda":
        torch.cuda.synchronize(place)
    return time.perf_counter() - start


def _machine(place: torch.device) -> str:
    if place.type == "cuda":
        return torch.cuda.get_device_name(place)
    return f"CPU, {torch.get_num_threads()} threads"
