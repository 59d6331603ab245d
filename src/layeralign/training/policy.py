"""The trained policy: a LoRA adapter on the language model, and a value head on its last hidden state."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from layeralign._util import files
from layeralign._util.quiet import quiet
from layeralign.errors import LayeralignError
from layeralign.training.data.rollout import Batch
from layeralign.training.modules import Part, linear_layers
from layeralign.vlm.vlm import Vlm

_SUPPRESSED = -1e9
"""Logit of a suppressed token; finite, so that 0 · log 0 stays 0."""


@dataclass(frozen=True)
class Outputs:
    """The policy's outputs for a batch of R answers of up to T tokens.

    Attributes:
        logits: float32 [R, T, V], the predictions of each answer token.
        values: float32 [R, T], of the states that predict these tokens.
    """

    logits: Tensor
    values: Tensor

    def trained(self, n: int) -> Outputs:
        """Return the outputs of the first n rows."""
        return Outputs(self.logits[:n], self.values[:n])


def _no_dropout(model: nn.Module) -> None:
    for module in model.modules():
        for name in ("p",) if isinstance(module, nn.Dropout) else ("attention_dropout",):
            if hasattr(module, name):
                setattr(module, name, 0.0)


_README = """\
---
library_name: peft
base_model: {model}
tags: [layeralign, vision-language-model, safety]
---
# An adapter by layeralign

LoRA on the {part} of `{model}`, trained so that the model stays safe at the exits of its image
encoder. Everything else is unchanged. `training.json` says what it was trained on, and how.

To measure it at every exit, and to make a section about that for this page:

    layeralign scan --model {model} --adapter THIS_FOLDER --cases CASES --out RUN
    layeralign card RUN
"""
"""Replaces PEFT's model card, whose fields are empty."""


class Policy(nn.Module):
    """Adapter and value head around a frozen model. The adapter is on the language model or the projector.

    The reference policy is the same weights with the adapter off. The value head is one linear layer on the
    language model's last hidden state (paper, "L-PPO"), zero at the start. The adapter is drawn from `seed`.
    """

    def __init__(
        self, vlm: Vlm, rank: int, seed: int, *, gradient_checkpointing: bool = False, part: Part = "language"
    ) -> None:
        super().__init__()
        self.vlm = vlm
        vlm.model.requires_grad_(False)
        torch.manual_seed(seed)
        self.part, modules = part, linear_layers(vlm, part)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=modules, lora_dropout=0.0)
        with quiet():
            self.peft: PeftModel = get_peft_model(vlm.model, config)
        self.value = nn.Linear(vlm.text_width, 1, device=vlm.device, dtype=torch.float32)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)
        if gradient_checkpointing:
            with quiet():
                vlm.model.gradient_checkpointing_enable({"use_reentrant": False})
            _no_dropout(vlm.model)  # checkpointed passes run in training mode
        self._checkpoints = gradient_checkpointing
        self._layers = [m for m in vlm.model.modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")]
        if any(hasattr(layer, "parameter_name") for layer in self._layers):
            raise LayeralignError(
                f"model {vlm.checkpoint.name}: PEFT puts adapters of family {vlm.family} into its experts' "
                "parameters, which cannot be merged for rollouts; align a model without experts"
            )
        names = {id(module): name for name, module in vlm.model.named_modules()}
        adapted = [names[id(layer)] for layer in self._layers]
        if strays := [name for name in adapted if not re.fullmatch(modules, name)]:
            raise LayeralignError(
                f"model {vlm.checkpoint.name}: PEFT puts adapters outside the part that is trained, such as "
                f"into {strays[0]}, since it has experts; align a model without experts"
            )

    def trainable(self) -> dict[str, nn.Parameter]:
        """Map each name to its parameter of the adapter or the value head."""
        adapter = {name: p for name, p in self.peft.named_parameters() if p.requires_grad}
        return adapter | {f"value.{name}": p for name, p in self.value.named_parameters()}

    def forward(self, batch: Batch) -> Outputs:
        """Return logits and values at every answer token; gradients follow the caller's grad mode."""
        # transformers checkpoints in training mode only, and does not cache keys in this mode
        self.vlm.model.train(self._checkpoints and torch.is_grad_enabled())
        hidden = self.vlm.hidden(batch.ids, batch.prompt, batch.features)
        self.vlm.model.eval()
        rows = torch.arange(len(hidden), device=hidden.device)[:, None]
        states = hidden[rows, batch.states]  # [R, T, width]
        logits = self.vlm.logits(states).float()
        logits = logits.index_fill(-1, self.suppressed, _SUPPRESSED)
        return Outputs(logits, self.value(states.float()).squeeze(-1))

    @property
    def suppressed(self) -> Tensor:
        """Ids that rollouts never sample: special tokens and the picture's placeholder, except end tokens."""
        return torch.tensor(self.vlm.unsayable, device=self.vlm.device)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Use the reference policy: the adapter is off."""
        with self.peft.disable_adapter():
            yield

    @contextmanager
    def merged(self) -> Iterator[None]:
        """Merge the adapter into the weights, to generate fast; the exact weights are restored afterwards."""
        own = [layer.base_layer.weight.data for layer in self._layers]
        try:
            for layer, weight in zip(self._layers, own, strict=True):
                layer.base_layer.weight.data = weight + layer.get_delta_weight("default").to(weight.dtype)
            with self.peft.disable_adapter():
                yield
        finally:
            for layer, weight in zip(self._layers, own, strict=True):
                layer.base_layer.weight.data = weight

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Draw an adapter at random, as large as the weights; the own one is restored afterwards.

        It changes the answers, which the own one does not before the first step.
        """
        parts = [layer.lora_B["default"].weight for layer in self._layers]
        own, rng = [part.data for part in parts], torch.Generator().manual_seed(0)
        try:
            for layer, part in zip(self._layers, parts, strict=True):
                part.data = torch.randn(part.shape, generator=rng).to(part)
                part.data *= (
                    layer.base_layer.weight.data.norm() / layer.get_delta_weight("default").data.norm()
                )
            yield
        finally:
            for part, weight in zip(parts, own, strict=True):
                part.data = weight

    def save(self, folder: Path) -> None:
        """Write the adapter in PEFT's form: adapter_config.json and adapter_model.safetensors.

        Each file appears complete, or not at all.

        Raises:
            LayeralignError: the adapter cannot be written.
        """
        part = "language model" if self.part == "language" else "projector"
        with files.atomic_in(folder, "the adapter") as draft:
            self._write(draft)
            page = _README.format(model=self.vlm.checkpoint.name, part=part)
            (draft / "README.md").write_text(page, encoding="utf-8")

    def _write(self, folder: Path) -> None:
        config: Any = self.peft.peft_config["default"]
        config.base_model_name_or_path = self.vlm.checkpoint.name
        config.inference_mode = True
        try:
            self.peft.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
        finally:
            config.inference_mode = False
