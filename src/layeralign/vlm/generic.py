"""A family that layeralign has no file for: one tower with one list of blocks, features into the prompt."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel, ProcessorMixin

from layeralign.errors import LayeralignError
from layeralign.text import printable
from layeralign.vlm import tower
from layeralign.vlm.checkpoint import Checkpoint
from layeralign.vlm.vlm import Vlm


class Generic(Vlm):
    """Any LLaVA-like model; before it is used, it has to prove itself on one grey picture.

    Found by looking: the tower as transformers names it, and in it the one `nn.ModuleList` of equal blocks.
    """

    family = "generic"
    variants: ClassVar = {
        "cut": "blocks 1..l of the tower, then all that follows them in the model's own code"
    }

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin | None,
        checkpoint: Checkpoint,
        variant: str | None = None,
    ) -> None:
        super().__init__(model, processor, checkpoint, variant)
        for wanted, what in (
            ("get_image_features", "gives no picture features by themselves (get_image_features)"),
            ("language_model", "has no language_model"),
        ):
            if not hasattr(getattr(self.model, "model", None), wanted):
                self._refuse(what)
        if self.tower is self.model or self.tower is self.model.model:
            self._refuse("has no vision tower under a name that transformers uses")
        if processor is not None:
            self._prove()

    def _refuse(self, what: str) -> None:
        kind = self.model.config.model_type
        raise LayeralignError(
            f"model {self.checkpoint.name}: family {printable(str(kind), 60)!r} is unknown, and it is not "
            f"like LLaVA: it {what}; a family can be added, see CONTRIBUTING"
        )

    @cached_property
    def blocks(self) -> nn.ModuleList:
        """The tower's only list of two or more blocks of one class, those inside its blocks aside."""
        found: dict[str, nn.ModuleList] = {}
        for name, module in self.tower.named_modules():
            inside = any(name.startswith(f"{outer}.") for outer in found)
            alike = isinstance(module, nn.ModuleList) and len({type(block) for block in module}) == 1
            if alike and len(module) > 1 and not inside:
                found[name] = module
        if len(found) != 1:
            names = f" ({', '.join(found)})" if found else ""
            self._refuse(
                f"has {len(found)} lists of blocks in its vision tower{names}, where one was expected"
            )
        return next(iter(found.values()))

    @torch.no_grad()
    def _prove(self) -> None:
        """One grey picture: held at the default exit, the model has to compute what it computes by itself."""
        picture = Image.new("RGB", (64, 64), (128, 128, 128))
        try:
            inputs, texts = self.prepare([picture])
            own = self.model.model.get_image_features(**inputs, return_dict=True)
            self.one_tensor = isinstance(own.pooler_output, Tensor)
            self.tuples = self._returns_tuples(inputs)
            exit = self.exits.default
            (made,) = self.encode([picture], [exit])[exit]
            (wanted,) = self.features(own, inputs, texts, exit)
            ids = torch.tensor([self.tokens(self.prompt("Hello.", picture=True), made)], device=self.device)
            prompt = torch.ones_like(ids, dtype=torch.bool)
            logits = self.logits(self.hidden(ids, prompt, [made]))
            theirs = self.model(input_ids=ids, **self.inputs(ids, prompt, [made])).logits
        except LayeralignError:
            raise
        except Exception as error:  # whatever an unknown model does where it is not like LLaVA
            self._refuse(f"fails on a grey picture ({printable(str(error), 200) or type(error).__name__})")
        if not torch.allclose(made.tokens, wanted.tokens, rtol=1e-3, atol=1e-4):
            self._refuse(f"gives other features when its encoder is held at its default exit {exit}")
        if not torch.allclose(logits, theirs, rtol=1e-2, atol=1e-2):
            self._refuse("does more than a linear layer between its last hidden states and its logits")

    def _returns_tuples(self, inputs: dict[str, Any]) -> bool:
        kinds: list[bool] = []
        handle = self.blocks[0].register_forward_hook(
            lambda *given: kinds.append(isinstance(given[2], tuple))
        )
        try:
            tower.states(lambda: self.model.model.get_image_features(**inputs), self.blocks, [1])
        finally:
            handle.remove()
        return kinds[0]
