"""The tests of a family, for classes that have no file of their own; coverage_models.py runs them on a tiny model of each.

The witness of an exit is a model whose blocks past it are modules that return what they are given, run from its pixels.
"""

import copy
import inspect
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from layeralign import LayeralignError
from layeralign.testing import FamilySuite, counted, noise
from layeralign.vlm.load import load

SIZES = ((32, 32), (20, 60), (150, 100), (40, 24), (300, 225))
MODELS = Path(os.environ.get("LAYERALIGN_TINY", "/nonexistent"))
"""A folder of checkpoints, each in a folder of its model_type."""
KINDS = sorted(path.name for path in MODELS.iterdir()) if MODELS.is_dir() else []
EXPERTS = ("into its experts' parameters", "since it has experts")


class Skipped(nn.Module):
    """A block that is not there."""

    def __init__(self, *, tuples):
        super().__init__()
        self.tuples = tuples

    def forward(self, *args, **kwargs):
        state = args[0] if args else kwargs.get("hidden_states", kwargs.get("hidden_state"))
        return (state,) if self.tuples else state


class TestCovered(FamilySuite):
    @pytest.fixture(scope="class", params=KINDS)
    def vlm(self, request):
        return load(MODELS / request.param)

    @pytest.fixture(scope="class")
    def pictures(self):
        return [noise(*size) for size in SIZES]

    def their_inputs(self, vlm, text, picture):
        content = [{"type": "image", "image": picture}] if picture else []
        turn = {"role": "user", "content": [*content, {"type": "text", "text": text}]}
        prompt = vlm.processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
        if picture is None:
            starts = bool(vlm.tokenizer.bos_token) and prompt.startswith(vlm.tokenizer.bos_token)
            made = vlm.tokenizer([prompt], add_special_tokens=not starts, return_tensors="pt")
        else:
            told = {"text": [prompt], "return_tensors": "pt"}
            kinds = "mm_token_type_ids"
            if (
                kinds in vlm.processor.model_input_names
                and kinds in inspect.signature(vlm.model.forward).parameters
            ):
                told["return_mm_token_type_ids"] = True
            made = vlm.processor(images=[picture], **told)
        return {name: given for name, given in made.items() if name != "token_type_ids" or picture}

    def features(self, vlm, picture, model, **others):
        """What a model makes of a picture: its features, and those of further layers."""
        inputs, _ = vlm.prepare([picture])
        holds = model.model if not hasattr(model, "get_image_features") else model
        with torch.no_grad():
            made = holds.get_image_features(**inputs | others, return_dict=True)
        layers = getattr(made, "deepstack_features", None) or []
        return [
            torch.cat([part.flatten(end_dim=-2) for part in parts]) for parts in (made.pooler_output, *layers)
        ]

    def own_features(self, vlm, picture):
        return self.features(vlm, picture, vlm.model)[0]

    def runs(self, vlm, picture):
        """More than once where the tower reads a picture, and then its tiles."""
        with counted(vlm.blocks) as ran:
            self.own_features(vlm, picture)
        return ran.count(1)

    def all_at(self, vlm, picture, exit):
        if "vision_feature_layer" in inspect.signature(vlm.inner.get_image_features).parameters:
            if exit == 0:
                pytest.skip("transformers cannot read layer 0")
            return self.features(vlm, picture, vlm.model, vision_feature_layer=exit)
        model = copy.deepcopy(vlm.model)
        blocks = type(vlm)(model, vlm.processor, vlm.checkpoint, vlm.reading).blocks
        for at in range(exit, len(blocks)):
            blocks[at] = Skipped(tuples=vlm.tuples)
            for name, value in vars(
                vlm.blocks[at]
            ).items():  # what a tower reads of its blocks, such as a kind
                if not name.startswith("_") and name != "training":
                    setattr(blocks[at], name, value)
        return self.features(vlm, picture, model)

    def reference(self, vlm, picture, exit):
        return self.all_at(vlm, picture, exit)[0]

    def test_further_layers(self, vlm, pictures):
        for exit, (made, *_) in vlm.encode(pictures[:1], vlm.exits.all).items():
            if "deepstack_features" not in made.extras:
                pytest.skip("has none")
            for layer, wanted in zip(
                made.extras["deepstack_features"], self.all_at(vlm, pictures[0], exit)[1:], strict=True
            ):
                self.equal(layer, wanted)

    def test_an_adapter_trains_and_loads_and_touches_no_vision(self, vlm, pictures, tmp_path):
        experts = any("experts" in name for name, _ in vlm.model.get_decoder().named_parameters())
        try:
            super().test_an_adapter_trains_and_loads_and_touches_no_vision(vlm, pictures, tmp_path)
        except LayeralignError as error:
            assert experts and any(said in str(error) for said in EXPERTS)
            pytest.skip("align refuses it, since it has experts")

    def behind(self, vlm):
        """The last module with weights that a picture goes through."""
        ran = []
        parts = [
            part for part in vlm.model.modules() if not list(part.children()) and list(part.parameters())
        ]
        handles = [part.register_forward_hook(lambda part, *_: ran.append(part)) for part in parts]
        try:
            self.features(vlm, noise(32, 32), vlm.model)
        finally:
            for handle in handles:
                handle.remove()
        assert ran[-1] not in list(vlm.blocks.modules())
        return ran[-1]
