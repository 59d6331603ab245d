"""The policy that is trained: a LoRA adapter on the language model, and a value head on its trunk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from layeralign._util import files
from layeralign.training.rollout import Batch
from layeralign.vlm.load import quiet
from layeralign.vlm.vlm import Vlm

_NEVER = -1e9
"""Logit of a token that must not be said; finite, so that 0 · log 0 stays 0."""


@dataclass(frozen=True)
class Outputs:
    """What the policy says of a batch's R answers of up to T tokens.

    Attributes:
        logits: float32 [R, T, V], of each answer token before it was said.
        values: float32 [R, T], of the states in which they were said.
    """

    logits: Tensor
    values: Tensor

    def rows(self, chosen: slice) -> Outputs:
        """Those of some rows."""
        return Outputs(self.logits[chosen], self.values[chosen])


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

LoRA on the language model of `{model}`, trained so that the model stays safe at the exits of its image
encoder; encoder and projector are as they were. What it was trained on, and how, is in `training.json`.

What it does at every exit, and a section about it for this page:

    layeralign scan --model {model} --adapter THIS_FOLDER --cases CASES --out RUN
    layeralign card RUN
"""
"""In place of PEFT's, which leaves every field for somebody to fill in."""


class Policy(nn.Module):
    """Adapter and value head around a frozen model.

    The reference is the same weights with the adapter off; the value is one linear layer on the trunk's
    last hidden state (paper, "L-PPO"), zero at the start. Both are drawn from `seed`.
    """

    def __init__(self, vlm: Vlm, rank: int, seed: int, *, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.vlm = vlm
        vlm.model.requires_grad_(False)
        torch.manual_seed(seed)
        config = LoraConfig(
            r=rank, lora_alpha=2 * rank, target_modules=vlm.language_modules, lora_dropout=0.0
        )
        with quiet():
            self.peft: PeftModel = get_peft_model(vlm.model, config)
        self.value = nn.Linear(vlm.text_width, 1, device=vlm.device, dtype=torch.float32)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)
        if gradient_checkpointing:
            with quiet():
                vlm.model.gradient_checkpointing_enable({"use_reentrant": False})
            _no_dropout(vlm.model)  # its passes are in training mode, and no other is
        self._checkpoints = gradient_checkpointing
        self._layers = [m for m in vlm.model.modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")]

    def trainable(self) -> dict[str, nn.Parameter]:
        """Name -> parameter of the adapter and the value head."""
        adapter = {name: p for name, p in self.peft.named_parameters() if p.requires_grad}
        return adapter | {f"value.{name}": p for name, p in self.value.named_parameters()}

    def forward(self, batch: Batch) -> Outputs:
        """Logits and values at every answer token; gradients where the caller allows them."""
        # transformers checkpoints in training mode only, and does not cache keys in it
        self.vlm.model.train(self._checkpoints and torch.is_grad_enabled())
        hidden = self.vlm.hidden(batch.ids, batch.prompt, batch.features)
        self.vlm.model.eval()
        rows = torch.arange(len(hidden), device=hidden.device)[:, None]
        said = hidden[rows, batch.states]  # [R, T, width]
        logits = self.vlm.logits(said).float()
        logits = logits.index_fill(-1, self.unsayable, _NEVER)
        return Outputs(logits, self.value(said.float()).squeeze(-1))

    @property
    def unsayable(self) -> Tensor:
        """Ids that rollouts never sample: special tokens (a picture's place is one) but the end."""
        return torch.tensor(self.vlm.unsayable, device=self.vlm.device)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """The start policy: the adapter off."""
        with self.peft.disable_adapter():
            yield

    @contextmanager
    def merged(self) -> Iterator[None]:
        """The adapter added into the weights, for generating fast; the very weights come back after."""
        kept = [layer.base_layer.weight.data for layer in self._layers]
        try:
            for layer, weight in zip(self._layers, kept, strict=True):
                layer.base_layer.weight.data = weight + layer.get_delta_weight("default").to(weight.dtype)
            with self.peft.disable_adapter():
                yield
        finally:
            for layer, weight in zip(self._layers, kept, strict=True):
                layer.base_layer.weight.data = weight

    def state(self) -> dict[str, Tensor]:
        """Copies of what is trained, on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.trainable().items()}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` returned."""
        for name, parameter in self.trainable().items():
            parameter.copy_(state[name])

    def save(self, folder: Path) -> None:
        """Write the adapter in PEFT's form: adapter_config.json and adapter_model.safetensors."""
        config: Any = self.peft.peft_config["default"]
        config.base_model_name_or_path = self.vlm.checkpoint.name
        config.inference_mode = True
        self.peft.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
        config.inference_mode = False
        files.write(folder / "README.md", _README.format(model=self.vlm.checkpoint.name))
