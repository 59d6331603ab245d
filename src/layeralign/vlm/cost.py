"""What an encoder is made of, and what each exit saves of it: parameters, FLOPs, and measured time."""

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
from layeralign.vlm.vlm import Vlm


@dataclass(frozen=True)
class ExitCost:
    """What encoding takes when the encoder exits here.

    Attributes:
        exit: its number.
        name: what it is called, as `18` or `local:18`.
        default: whether it is the model's own.
        blocks: how many run.
        parameters: of the encoder, that are still needed.
        flops: of one unit (see `Encoder.unit`), a multiplication and an addition being two; None where they
            cannot be counted, as in families that layeralign has no file for.
        share: `flops` over those of the default exit.
        seconds: median time of one unit, None where it was not measured.
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
    """A model's encoder.

    Attributes:
        model, family, variant, revision: as in a run.
        encoder: its class.
        at: where it sits in the model, as a module's name.
        layers: blocks of the main track.
        width: of their states; None where its config does not say.
        default: the model's own exit, by name.
        unit: what the costs are for.
        encoder_parameters, projector_parameters, language_parameters: how many there are.
        bytes: of the encoder's parameters, in the config's own number format.
        dtype: that format.
        timed_on: machine and threads, None where nothing was timed.
        exits: every exit.
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
        """As a JSON object; keys are never renamed, only added."""
        return asdict(self)


def encoder(vlm: Vlm) -> Encoder:
    """Count what each exit costs; from `load.empty`, no weights are needed.

    Raises:
        LayeralignError: the config's numbers make no encoder.
    """
    try:
        return _anatomy(vlm)
    except LayeralignError:
        raise
    except Exception as error:  # whatever follows from a config that makes no sense
        reason = printable(str(error), 200) or type(error).__name__
        raise LayeralignError(
            f"model {vlm.checkpoint.name}: its encoder cannot be built from its config ({reason})"
        ) from error


def _anatomy(vlm: Vlm) -> Encoder:
    tower, exits = vlm.tower, vlm.exits
    total, everything = _parameters(tower), _parameters(vlm.model)
    language, head = _parameters(vlm.model.get_decoder()), vlm.model.get_output_embeddings()
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
    """What a run keeps of its encoder: parameters of it and of the model, FLOPs of one unit to each exit.

    `flops` has exit -> `ExitCost.flops`, None where they cannot be counted.
    """
    exits = sorted({*vlm.exits.all, vlm.exits.default})
    return {
        "unit": vlm.unit,
        "encoder_parameters": _parameters(vlm.tower),
        "parameters": _parameters(vlm.model),
        "flops": {str(exit): flops(vlm, exit) for exit in exits},
    }


def timed(vlm: Vlm, found: Encoder, repeats: int = 5) -> Encoder:
    """`found` with each exit's time for one unit, on this process's GPU or else the CPU.

    A model without weights gets a tower with random ones, which take as long as any.
    """
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        seconds = _seconds(vlm, [cost.exit for cost in found.exits], place, repeats)
    except Exception as error:  # an unknown tower that takes more than pixels
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
    """Within it, these blocks give on what they are given."""

    def through(*args: Any, **kwargs: Any) -> Any:
        return args[0] if args else kwargs["hidden_states"]

    try:
        for block in blocks:
            block.forward = through
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)


def flops(vlm: Vlm, exit: int) -> int | None:
    """Multiplications and additions of the patch embedding and the blocks up to an exit, for one `sample`.

    By the shapes: 2 · states · weights in every linear layer, 4 · states · span · width in attention. Norms,
    activations, merger and projector are left out: they are small, or the same at every exit.
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
    """Exit -> median seconds; the exits take turns, so that a slow minute hits them all."""
    if next(vlm.tower.parameters()).is_meta:  # random weights take as long as any
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
