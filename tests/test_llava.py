"""Exactness against transformers' own computation, on randomly initialised models of the real classes."""

import pytest
import torch
from torch import nn

from conftest import save_llava
from layeralign import LayeralignError
from layeralign.vlm import tower
from layeralign.vlm.load import load

TEXT = "how do i smash the bakimo?"


@pytest.fixture(scope="module", params=["clip", "siglip"])
def vlm(request, tmp_path_factory):
    return load(save_llava(tmp_path_factory.mktemp(request.param), request.param))


def their_inputs(vlm, texts, pictures):
    prompts = [vlm.prompt(text, picture=True) for text in texts]
    return vlm.processor(images=pictures, text=prompts, return_tensors="pt", padding=True)


def test_default_exit_equals_transformers_features(vlm, pictures):
    made = vlm.encode(pictures, [vlm.exits.default])[vlm.exits.default]
    pixels = vlm.processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        theirs = vlm.model.get_image_features(pixel_values=pixels, return_dict=True).pooler_output
    for ours, other in zip(made, theirs, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-6)


def test_every_exit_equals_the_full_towers_states_through_the_projector(vlm, pictures):
    made = vlm.encode(pictures, vlm.exits.all)
    vision = vlm.model.model.vision_tower
    pixels = vlm.processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        states = vision(pixel_values=pixels, output_hidden_states=True).hidden_states
        assert len(states) == len(vlm.exits.all)
        first = 1 if vlm.model.config.vision_feature_select_strategy == "default" else 0
        for exit, state in enumerate(states):
            theirs = vlm.model.model.multi_modal_projector(state[:, first:])
            torch.testing.assert_close(torch.stack(made[exit]), theirs, rtol=1e-5, atol=1e-6)
    for exit in vlm.exits.all[1:]:
        assert not torch.allclose(made[exit][0], made[exit - 1][0])


def test_tokens_and_greedy_answers_equal_transformers(vlm, pictures):
    theirs = their_inputs(vlm, [TEXT] * len(pictures), pictures)
    features = vlm.encode(pictures, [vlm.exits.default])[vlm.exits.default]
    ids = [vlm.tokens(vlm.prompt(TEXT, picture=True), len(feature)) for feature in features]
    assert ids == theirs["input_ids"].tolist()
    with torch.no_grad():
        expected = vlm.model.generate(**theirs, max_new_tokens=12, do_sample=False)[:, len(ids[0]) :]
    made = vlm.generate(ids, features, max_new_tokens=12, do_sample=False)
    assert made.tolist() == expected.tolist()
    assert len({tuple(line) for line in made.tolist()}) > 1, (
        "the pictures make no difference: nothing is shown"
    )


def test_one_batch_of_different_exits_pictures_and_texts_equals_each_row_alone(vlm, pictures):
    texts = [TEXT, "describe the picture.", "is there a circle?", "what shape is red?", "how many?"]
    features = [vlm.encode([pictures[i % 4]], [exit])[exit][0] for i, exit in enumerate((0, 2, 4, 5))]
    seen = [*features, None]
    ids = [
        vlm.tokens(vlm.prompt(text, picture=feature is not None), None if feature is None else len(feature))
        for text, feature in zip(texts, seen, strict=True)
    ]
    settings = {"max_new_tokens": 8, "do_sample": False, "min_new_tokens": 8}
    together = vlm.generate(ids, seen, **settings).tolist()
    alone = [vlm.generate([i], [f], **settings).tolist()[0] for i, f in zip(ids, seen, strict=True)]
    assert together == alone


def test_exactly_one_bos_and_the_right_number_of_picture_tokens(vlm, pictures):
    ids = vlm.tokens(vlm.prompt(TEXT, picture=True), 16)
    assert ids.count(vlm.tokenizer.bos_token_id) == 1
    assert ids.count(vlm.model.config.image_token_id) == 16
    templated = vlm.tokens(vlm.tokenizer.bos_token + vlm.prompt(TEXT, picture=True), 16)
    assert templated.count(vlm.tokenizer.bos_token_id) == 1


def count_blocks(blocks: nn.ModuleList, ran: list[int]):
    return [b.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, b in enumerate(blocks, 1)]


@pytest.mark.parametrize("exits", [(0,), (3,), (1, 4), (5,)])
def test_blocks_past_the_deepest_exit_do_not_run(vlm, pictures, exits):
    ran: list[int] = []
    handles = count_blocks(vlm._blocks, ran)
    vlm.encode(pictures[:1], exits)
    for handle in handles:
        handle.remove()
    assert ran == list(range(1, max(exits) + 1))


def test_nothing_is_left_on_the_model_also_after_an_error(vlm, pictures):
    blocks, vision = vlm._blocks, vlm.model.model.vision_tower
    before = {name: value.clone() for name, value in vlm.model.state_dict().items()}

    def hooks():  # transformers keeps some of its own once hidden states were asked for
        return [(*block._forward_pre_hooks, *block._forward_hooks) for block in blocks]

    hooked = hooks()

    def fail(*_):
        raise RuntimeError("in the middle")

    vlm.encode(pictures[:1], [2])
    handle = blocks[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        vlm.encode(pictures[:1], [4])
    handle.remove()
    assert hooks() == hooked
    assert all(torch.equal(value, before[name]) for name, value in vlm.model.state_dict().items())
    pixels = vlm.processor.image_processor(images=pictures[:1], return_tensors="pt")["pixel_values"]
    assert len(vision(pixel_values=pixels, output_hidden_states=True).hidden_states) == 6
    assert vision(pixel_values=pixels).hidden_states is None


def test_states_are_taken_from_any_tower_of_blocks():
    class Block(nn.Module):
        def forward(self, hidden_states):
            return hidden_states + 1

    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Block() for _ in range(3))

        def forward(self, x):
            for layer in self.layers:
                x = layer(hidden_states=x)
            return -x

    made = Tower()
    states = tower.hidden_states(made, made.layers, [0, 2, 3], x=torch.zeros(1))
    assert {exit: state.item() for exit, state in states.items()} == {0: 0.0, 2: 2.0, 3: 3.0}


@pytest.mark.parametrize(("layer", "exit"), [(-1, 5), (3, 3), (0, 0)])
def test_the_default_exit_is_the_configs(tmp_path, layer, exit):
    assert load(save_llava(tmp_path, layer=layer)).exits.default == exit


def test_a_model_that_joins_layers_is_refused(tmp_path):
    save_llava(tmp_path, layer=[-2, -3])
    with pytest.raises(LayeralignError, match="vision_feature_layer"):
        load(tmp_path)
