"""Models of unknown families: one tower with one list of blocks, and features in the prompt."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, NoReturn

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel, ProcessorMixin

from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.vlm import tower
from layeralign.vlm.checkpoint import Checkpoint
from layeralign.vlm.vlm import Vlm


class Generic(Vlm):
    """Any LLaVA-like model; it is checked on a grey picture before use.

    The tower is found by transformers' names, and its blocks as its only `nn.ModuleList` of equal blocks.
    """

    family = "generic"
    variants: ClassVar = {
        "cut": "blocks 1..l of the tower, then all that follows them in the model's own code"
    }
    streams = False  # its positions and its cache are unknown

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin | None,
        checkpoint: Checkpoint,
        variant: str | None = None,
    ) -> None:
        super().__init__(model, processor, checkpoint, variant)
        for wanted, what in (
            ("get_image_features", "has no get_image_features"),
            ("language_model", "has no language_model"),
        ):
            if not hasattr(getattr(self.model, "model", None), wanted):
                self._refuse(what)
        named = isinstance(self.tower, nn.Module)
        if not named or self.tower is self.model or self.tower is self.model.model:
            self._refuse("has no vision tower under a name known to transformers")
        if processor is not None:
            self._prove()

    def _refuse(self, what: str) -> NoReturn:
        kind = self.model.config.model_type
        raise LayeralignError(
            f"model {self.checkpoint.name}: family {printable(str(kind), 60)!r} is unknown, and it is not "
            f"like LLaVA, since it {what}; CONTRIBUTING explains how to add a family"
        )

    @cached_property
    def blocks(self) -> nn.ModuleList:
        """The tower's only list of two or more blocks of one class, except lists inside blocks."""
        found: dict[str, nn.ModuleList] = {}
        for name, module in self.tower.named_modules():
            inside = any(name.startswith(f"{outer}.") for outer in found)
            alike = isinstance(module, nn.ModuleList) and len({type(block) for block in module}) == 1
            if alike and len(module) > 1 and not inside:
                found[name] = module
        if len(found) != 1:
            names = f" ({', '.join(found)})" if found else ""
            self._refuse(f"has {len(found)} lists of blocks in its vision tower{names} instead of one")
        return next(iter(found.values()))

    @torch.no_grad()
    def _prove(self) -> None:
        """Check on a grey picture that the model behaves the same at its default exit as on its own.

        On its own, it gets all outputs of its processor. The check detects families that need more inputs
        than features, such as positions, token types or masks.
        """
        picture = Image.new("RGB", (96, 48), (128, 128, 128))
        try:
            inputs, texts = self.prepare([picture])
            own = self.model.model.get_image_features(**inputs, return_dict=True)
            self.one_tensor = isinstance(own.pooler_output, Tensor)
            self.tuples = self._returns_tuples(inputs)
            (made,) = self.encode([picture], [self.exits.default])[self.exits.default]
            (wanted,) = self.features(own, inputs, texts, self.exits.default)
            prompt = self.prompt("Hello.", picture=True)
            ids = self.tokens(prompt, made)
            theirs = self.own_inputs(prompt, picture, ids)
            if theirs is None:
                self._refuse("builds a different prompt with its own processor")
            line = torch.tensor([ids], device=self.device)
            logits = self.logits(self.hidden(line, torch.ones_like(line, dtype=torch.bool), [made]))
            expected = self.model(**theirs).logits
            settings = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
            answer = self.generate([ids], [made], **settings)
            own_answer = self.model.generate(**theirs, **settings, pad_token_id=self.pad_token)[:, len(ids) :]
        except LayeralignError:
            raise
        except Exception as error:  # an unknown model can raise anything
            self._refuse(f"fails on a grey picture ({printable(str(error), 200) or type(error).__name__})")
        if not _near(made.tokens, wanted.tokens):
            self._refuse("gives different features when its encoder exits at its default exit")
        if not _near(logits, expected) or not torch.equal(answer, own_answer):
            self._refuse("answers differently when given only its own picture features")

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

    @property
    def states(self) -> int | None:
        """See `Vlm.states`; None, since the encoder may have windows, tiles or pictures of any size."""
        return None


def _near(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have equal shapes and differ by at most 1 % of the largest value."""
    if one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= 0.01 * other.abs().max())
