"""What the machine can do, measured here and now, and what a sweep needs at least."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from layeralign.vlm.cost import flops
from layeralign.vlm.vlm import Vlm


def took(device: torch.device, run: Callable[[], object]) -> float:
    """Seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def linear_layers(vlm: Vlm, tokens: int) -> Callable[[], None]:
    """The language model's linear layers one after the other, on so many tokens, and nothing between them."""
    layers = [m for m in vlm.model.get_decoder().layers.modules() if isinstance(m, torch.nn.Linear)]
    widths = {layer.in_features for layer in layers}
    states = {n: torch.randn(tokens, n, device=vlm.device, dtype=vlm.model.dtype) for n in widths}

    def run() -> None:
        for layer in layers:
            layer(states[layer.in_features])

    return run


@dataclass
class Rates:
    """Of a machine, at its best of several tries.

    Attributes:
        square: FLOP per second of one product of two large square matrices.
        linears: FLOP per second of the language model's own linear layers one after the other, on as many tokens
            as are prefilled at once, with nothing between them: what no engine goes beyond at these shapes.
        copied: bytes per second that are read and written in a copy of memory.
    """

    square: float = 0.0
    linears: float = 0.0
    copied: float = 0.0

    @torch.inference_mode()
    def measure(self, vlm: Vlm, tokens: int) -> None:
        """Try again; the best counts."""
        device, dtype = vlm.device, vlm.model.dtype
        side = 2048 if device.type == "cpu" else 8192
        one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
        tries = 3 if device.type == "cpu" else 20
        self.square = max(
            self.square, *(2 * side**3 / took(device, lambda: one @ other) for _ in range(tries))
        )
        work, run = 2 * tokens * _weights(vlm.model.get_decoder().layers), linear_layers(vlm, tokens)
        self.linears = max(self.linears, *(work / took(device, run) for _ in range(2)))
        whole = torch.randn(2**26 if device.type == "cpu" else 2**30, device=device)
        self.copied = max(self.copied, *(2 * whole.nbytes / took(device, whole.clone) for _ in range(3)))


@dataclass(frozen=True)
class Work:
    """FLOP that a sweep cannot do without: matrix products and attention, each thing once.

    Attributes:
        encode: each picture once, up to the deepest exit, and the projector at every exit.
        prefill: each token of a prompt once, what prompts share once; the head at each prompt's end.
        decode: each further token.
    """

    encode: float
    prefill: float
    decode: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.encode + self.prefill + self.decode


def work(vlm: Vlm, pictures: int, exits: list[int], read: int, rows: int, prompt: int, answer: int) -> Work:
    """What so much of a sweep needs.

    Args:
        vlm: a LLaVA.
        pictures: encoded.
        exits: each picture's.
        read: tokens of prompts, what is shared counted once.
        rows: answers.
        prompt: tokens of each prompt.
        answer: tokens of each answer.
    """
    text = vlm.model.config.get_text_config()
    attended = 4 * text.num_hidden_layers * text.hidden_size  # of a token that sees one token
    weights, head = _weights(vlm.model.get_decoder().layers), vlm.model.get_output_embeddings().weight.numel()
    projector = 2 * _weights(vlm.model.model.multi_modal_projector) * vlm.model.config.image_seq_length
    decode_step = rows * (answer - 1)
    return Work(
        encode=pictures * ((flops(vlm, max(exits)) or 0) + len(exits) * projector),
        prefill=(2 * weights + attended * prompt / 2) * read + 2 * head * rows,
        decode=decode_step * (2 * (weights + head) + attended * (prompt + answer / 2)),
    )


def _weights(module: torch.nn.Module) -> int:
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, torch.nn.Linear))
