"""Models of unknown families: one tower whose blocks run in order, and features in the prompt."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any, ClassVar, NoReturn

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Cache, GenerationMixin, PreTrainedModel, ProcessorMixin
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.vlm import tower
from layeralign.vlm.checkpoint import Checkpoint
from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm

_DEEPSTACK = "deepstack_features"
_MORE = "output."
"""Before the name of a further field of the features' output, which is the same for every picture."""
_KNOWN = re.compile(f"hidden_state|pooler_output|attentions|logits|{_DEEPSTACK}")
_BETWEEN = re.compile("deepstack|insert_layer")
"""Fields of a tower's config that name blocks whose states are read, or after which more than blocks runs."""


class Generic(Vlm):
    """Any LLaVA-like model; it is checked on a grey picture before use.

    The tower is found by transformers' names, and its blocks as its list of equal blocks, the last if there
    are several. The tower may run several times, as for a picture and its tiles.
    """

    family = "generic"
    variants: ClassVar = {
        "cut": "blocks 1..l of the tower (of its last part, if it has several), then all that follows them "
        "in the model's own code; what the model reads of a block past l is read at l"
    }
    streams = False  # its positions and its cache are unknown
    blocks_at = ""

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin | None,
        checkpoint: Checkpoint,
        variant: str | None = None,
    ) -> None:
        super().__init__(model, processor, checkpoint, variant)
        if not hasattr(self.inner, "get_image_features"):
            self.refuse("has no get_image_features")
        if self.model.get_decoder() in (self.model, self.inner):
            self.refuse("has no language model under a name known to transformers")
        named = isinstance(self.tower, nn.Module)
        if not named or self.tower in (self.model, self.inner):
            self.refuse("has no vision tower under a name known to transformers")

    def refuse(self, what: str) -> NoReturn:
        """See `Vlm.refuse`."""
        kind = self.model.config.model_type
        raise LayeralignError(
            f"model {self.checkpoint.name}: family {printable(str(kind), 60)!r} is unknown, and it is not "
            f"like LLaVA, since it {what}; CONTRIBUTING explains how to add a family"
        )

    @property
    def lists_of_blocks(self) -> dict[str, nn.ModuleList]:
        """See `Vlm.lists_of_blocks`; the last of several, which `proof` checks to run last."""
        return dict(list(super().lists_of_blocks.items())[-1:])

    @property
    def reads_cut(self) -> bool:
        """See `Vlm.reads_cut`; not if the config names blocks between which more happens."""
        return super().reads_cut and not any(map(_BETWEEN.search, self.tower.config.to_dict()))

    def _encode(self, pictures: Sequence[Image.Image], exits: Sequence[int]) -> dict[int, list[Feature]]:
        """See `Vlm.encode`; every run of the tower is cut, and each picture is read alone, as in `proof`."""
        found: dict[int, list[Feature]] = {exit: [] for exit in exits}
        for picture in pictures:
            inputs, texts = self.prepare([picture])
            run = partial(self.inner.get_image_features, **inputs, return_dict=True)
            known = tower.passes(run, self.blocks, max(exits), tuples=self.tuples)
            for exit in exits:
                first = exit if self.captured_layers else min(exit, max(1, self.exits.default))
                with tower.replayed(self.blocks, known, exit, first, tuples=self.tuples):
                    found[exit] += self.features(run(), inputs, texts, exit)
        return found

    # --- what its processor makes of a picture

    @property
    def placeholder(self) -> str:
        """See `Vlm.placeholder`; without one, the picture's tokens that the chat template itself writes."""
        named = getattr(self.processor, "image_placeholder_token", None) or getattr(
            self.processor, "image_token", None
        )
        return str(named) if named else self._written

    @cached_property
    def _written(self) -> str:
        found = re.search(f"({re.escape(self.picture_token)})+", self.prompt("Hello.", picture=True))
        return found[0] if found else self.picture_token

    def processed(self, pictures: Sequence[Image.Image], by: Callable[..., Any], **settings: Any) -> Any:
        """See `Vlm.processed`; some processors take no list per prompt, and some count their own tensors."""
        if settings.get("return_tensors", "") is None:
            settings |= {"text_kwargs": {"return_tensors": settings.pop("return_tensors")}}
            settings |= {"images_kwargs": {"return_tensors": "pt"}}
        try:
            return super().processed(pictures, by, **settings)
        except LayeralignError:
            try:
                return by(images=list(pictures), **settings)
            except Exception:  # noqa: S110 - what it says of lists is what counts
                pass
            raise

    @cached_property
    def text_around(self) -> str:
        """See `Vlm.text_around`; a whole prompt, since some processors look for what surrounds a picture."""
        return self.prompt("Hello.", picture=True)

    def replacements(self, made: Any) -> list[str]:
        """See `Vlm.replacements`; a processor that does not say gives it as tokens."""
        if made.get("text_replacement_offsets"):
            return super().replacements(made)
        made.pop("text_replacement_offsets", None)
        before, _, behind = self.text_around.partition(self.placeholder)
        texts = [self.tokenizer.decode(ids) for ids in made["input_ids"]]
        return [text.partition(before)[2].rpartition(behind)[0] for text in texts]

    # --- the language model

    @cached_property
    def _forward_takes(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.inner.forward).parameters)

    def extras(self, output: Any, inputs: Mapping[str, Any], n: int, exit: int) -> list[dict[str, Tensor]]:
        """See `Vlm.extras`: what the forward takes of a picture besides its features, such as its grid.

        Deepstack features, of further layers, are [layers, picture tokens, text width].
        """
        told = {
            name: given
            for name, given in inputs.items()
            if name in self._forward_takes and "pixel" not in name and isinstance(given, Tensor)
        }
        extras = [
            {name: given[at : at + 1] for name, given in told.items() if len(given) == n} for at in range(n)
        ]
        layers = getattr(output, "deepstack_features", None) or []
        for at, extra in enumerate(extras if layers else ()):
            extra[_DEEPSTACK] = torch.stack([layer[at] for layer in layers])
        more = {
            name: made
            for name, made in output.items()
            if isinstance(made, Tensor) and not _KNOWN.search(name)
        }
        return [extra | {f"{_MORE}{name}": made for name, made in more.items()} for extra in extras]

    def inputs(self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None]) -> dict[str, Any]:
        """See `Vlm.inputs`; also each picture's `extras`, and the tokens that stand for a picture."""
        given = super().inputs(ids, prompt, features)
        if given:
            given["mm_encoder_outputs"]["image"] = _Features(**given["mm_encoder_outputs"]["image"])
        extras = [feature.extras for feature in features if feature is not None]
        for name in set(extras[0] if extras else ()) - {_DEEPSTACK}:
            made = [one[name].to(ids.device) for one in extras]
            if name.startswith(_MORE):
                if any(not torch.equal(made[0], other) for other in made[1:]):
                    self.refuse(f"needs {name.removeprefix(_MORE)} of every picture besides features")
                given["mm_encoder_outputs"]["image"][name.removeprefix(_MORE)] = made[0]
            else:
                given[name] = torch.cat(made)
        if extras and _DEEPSTACK in extras[0]:
            layers: Any = [list(layer) for layer in zip(*(one[_DEEPSTACK] for one in extras), strict=True)]
            given["mm_encoder_outputs"]["image"].deepstack_features = layers
        for name in self._forward_takes:
            if name.endswith("token_type_ids"):
                own = getattr(self.processor, f"create_{name}", None)
                kinds = (
                    torch.tensor(own(ids.tolist())).to(ids) if own else (ids == self.picture_token_id).long()
                )
                given[name] = kinds * prompt
        return given

    def hidden(
        self, ids: Tensor, prompt: Tensor, features: Sequence[Feature | None], cache: Cache | None = None
    ) -> Tensor:
        """See `Vlm.hidden`; row by row where batches change the logits."""
        if not self.answers_alone or len(ids) == 1:
            return super().hidden(ids, prompt, features, cache)
        rows = [self.hidden(ids[at : at + 1], prompt[at : at + 1], [features[at]]) for at in range(len(ids))]
        return torch.cat(rows)

    @property
    def generator(self) -> Any:
        """See `Vlm.generator`; transformers' own way, since a class's may ignore how tokens are chosen."""
        return SimpleNamespace(generate=partial(GenerationMixin.generate, self.model))

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Vlm.logits`; made by the model's own forward, which may scale or cap what its head gives."""
        if self.inner is self.model:
            return super().logits(hidden)
        rows = hidden.reshape(1, -1, hidden.shape[-1])
        own = vars(self.inner).get("forward")
        self.inner.forward = lambda *_, **__: _Hidden(last_hidden_state=rows)
        try:
            made: Tensor = self.model(input_ids=rows.new_zeros(rows.shape[:2], dtype=torch.long)).logits
        finally:
            if own is None:
                del self.inner.forward
            else:
                self.inner.forward = own
        return made.reshape(*hidden.shape[:-1], made.shape[-1])

    @property
    def states(self) -> int | None:
        """See `Vlm.states`; None, since the encoder may have windows, tiles or pictures of any size."""
        return None


class _Only:
    """A model's output whose fields are None unless they are given."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return dict.get(self, name)  # type: ignore[call-overload] # an output is a dict


class _Hidden(_Only, BaseModelOutputWithPast):
    """Of the language model without its head."""


class _Features(_Only, BaseModelOutputWithDeepstackFeatures):
    """Of `get_image_features`."""
