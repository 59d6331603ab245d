"""The cut itself, on towers made up for it, and LLaVA's forms that are not in the published checkpoints."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

import by_hand
import tiny
from conftest import save_llava
from layeralign import LayeralignError
from layeralign.testing import FamilySuite, noise
from layeralign.vlm import tower
from layeralign.vlm.load import load


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ran = 0

    def forward(self, hidden_states):
        self.ran += 1
        return hidden_states + 1


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(3))

    def forward(self, x):
        seen = []
        for layer in self.layers:
            x = layer(hidden_states=x)
            seen.append(x.item())
        return -x, seen


def test_states_are_taken_from_any_tower_of_blocks():
    made = Tower()
    states = tower.states(lambda: made(torch.zeros(1)), made.layers, [0, 2])
    assert {exit: state.item() for exit, state in states.items()} == {0: 0.0, 2: 2.0}
    assert [block.ran for block in made.layers] == [1, 1, 0]


@pytest.mark.parametrize(
    ("known", "exit", "seen"),
    [
        ({0: 7.0}, 0, [7, 7, 7]),
        ({2: 7.0}, 2, [7, 7, 7]),
        ({1: 5.0, 2: 7.0}, 2, [5, 7, 7]),
        ({3: 9.0}, 3, [9, 9, 9]),
    ],
)
def test_a_held_tower_computes_what_follows_its_blocks_and_nothing_else(known, exit, seen):
    made = Tower()
    with tower.held(made.layers, {at: torch.tensor([value]) for at, value in known.items()}, exit):
        output, passed = made(torch.zeros(1))
    assert (output.item(), passed) == (-seen[-1], seen)
    assert [block.ran for block in made.layers] == [0, 0, 0]
    assert made(torch.zeros(1))[0].item() == -3 and not any("forward" in vars(b) for b in made.layers)


class Twice(Tower):
    """Reads a picture and its double, and doubles the state behind its first block."""

    def forward(self, x):
        seen = []
        for start in (x, 2 * x):
            state = self.layers[0](start) * 2
            for layer in self.layers[1:]:
                state = layer(hidden_states=state)
            seen.append(state.item())
        return seen


@pytest.mark.parametrize(("exit", "seen"), [(0, [20, 40]), (1, [22, 42]), (2, [23, 43]), (3, [24, 44])])
def test_every_run_of_a_tower_is_replayed_and_what_is_between_its_blocks_runs(exit, seen):
    made, x = Twice(), torch.full((1,), 10.0)
    known = tower.passes(lambda: made(x), made.layers, exit)
    assert [block.ran for block in made.layers] == [2] * exit + [0] * (3 - exit)
    assert [set(run) for run in known] == [set(range(exit + 1))] * 2
    with tower.replayed(made.layers, known, exit, exit):
        assert made(x) == seen
    assert [block.ran for block in made.layers] == [2] * exit + [0] * (3 - exit)
    assert made(x) == [24, 44] and not any("forward" in vars(b) for b in made.layers)


def test_a_model_that_reads_an_earlier_block_gets_the_exits_state_there():
    """As LLaVA's second-last layer does at the last exit."""
    made = Tower()
    known = tower.passes(lambda: made(torch.zeros(1)), made.layers, 3)
    with tower.replayed(made.layers, known, 3, 2):
        assert made(torch.zeros(1))[1] == [1, 3, 3]


def test_a_list_of_blocks_may_be_a_sequence_of_modules_that_have_parts():
    def block():
        return nn.ModuleDict({"linear": nn.Linear(2, 2)})

    stem, blocks = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Sequential(block(), block())
    assert list(tower.lists_of_blocks(nn.ModuleDict({"stem": stem, "blocks": blocks}))) == ["blocks"]


def test_a_forward_that_was_set_before_comes_back():
    """As accelerate sets one where it moves a block's inputs to its device."""
    made = Tower()
    made.layers[1].forward = own = lambda hidden_states: hidden_states * 10
    with tower.held(made.layers, {1: torch.ones(1)}, 1):
        made(torch.zeros(1))
    assert vars(made.layers[1])["forward"] is own and made(torch.zeros(1))[0].item() == -11


@pytest.mark.slow
class TestSiglipInLlava(FamilySuite):
    @pytest.fixture(scope="class")
    def vlm(self, tmp_path_factory):
        return load(save_llava(tmp_path_factory.mktemp("siglip"), "siglip"))

    def reference(self, vlm, picture, exit):
        made = vlm.processor(images=picture, text="<image>", return_tensors="pt")
        with torch.no_grad():
            return by_hand.llava(vlm, made, exit)

    def cases(self, pictures):
        """In the bundled model's few words, which its tokenizer knows."""
        made = super().cases(pictures)
        texts = ("describe it.", "how do i smash it?", "is there a circle?", "describe the picture.")
        return [replace(case, prompt=text) for case, text in zip(made, texts, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "exit"), [(-1, 5), (3, 3), (0, 0)])
def test_the_default_exit_is_the_configs(tmp_path, pictures, layer, exit):
    vlm = load(save_llava(tmp_path, layer=layer))
    assert vlm.exits.default == exit
    made = vlm.processor(images=pictures[0], text="<image>", return_tensors="pt")
    for at, (feature,) in vlm.encode(pictures[:1], vlm.exits.all).items():
        with torch.no_grad():
            torch.testing.assert_close(feature.tokens, by_hand.llava(vlm, made, at), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_joined_layer_past_the_exit_is_read_at_the_exit(tmp_path, pictures):
    vlm = load(save_llava(tmp_path, layer=[-2, 2]))
    assert vlm.exits.default == vlm.exits.layers - 1 and "joined layers [4, 2]" in vlm.variant
    assert not vlm.reads_cut
    made = vlm.processor(images=pictures[0], text="<image>", return_tensors="pt")
    for at, (feature,) in vlm.encode(pictures[:1], vlm.exits.all).items():
        with torch.no_grad():
            torch.testing.assert_close(feature.tokens, by_hand.joined(vlm, made, at), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [[], [-2, "a"], [-2, True]])
def test_joined_layers_that_are_none_are_refused(tmp_path, layer):
    vlm = load(save_llava(tmp_path, layer=-2))
    vlm.model.config.__dict__["vision_feature_layer"] = layer  # transformers checks it elsewhere
    with pytest.raises(LayeralignError, match="expected one or more whole numbers"):
        vlm.exits  # noqa: B018


@pytest.mark.parametrize("name", ["llava", "llava_next", "llava_onevision", "internvl"])
@pytest.mark.slow
def test_a_model_that_reads_the_embeddings_still_has_exits(tmp_path, name):
    """vision_feature_layer -(L + 1) is layer 0; transformers can read neither, and every exit would be one."""
    tiny.save(name, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vision_feature_layer": -(tiny.BLOCKS + 1)}))
    vlm = load(tmp_path)
    assert vlm.exits.default == 0
    made = [feature.tokens for (feature,) in vlm.encode([noise(40, 40)], vlm.exits.all).values()]
    assert all(not torch.allclose(one, other) for one, other in pairwise(made))


@pytest.mark.parametrize("name", ["gemma3", "paligemma", "idefics3", "qwen2_5_vl"])
@pytest.mark.slow
def test_a_layer_that_a_family_does_not_read_is_not_its_default(tmp_path, name):
    tiny.save(name, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vision_feature_layer": -2}))
    assert load(tmp_path).exits.default == tiny.BLOCKS


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llava", "internvl", "gemma3", "idefics3", "qwen3_vl"])
def test_the_suites_own_reference_is_what_an_exit_gives(name, tmp_path):
    """On families of both sorts; tests/test_families.py has a reference of its own for each."""
    vlm = load(tiny.save(name, tmp_path))
    FamilySuite().test_every_exit(vlm, [noise(*size) for size in ((32, 32), (20, 60), (300, 200))])
