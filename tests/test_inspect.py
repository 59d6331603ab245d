"""The shape of an encoder and what its exits save, from a config alone."""

import json
import socket
import weakref
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import children
import tiny
from layeralign import LayeralignError
from layeralign.cli import main
from layeralign.vlm import cost
from layeralign.vlm.load import empty, load

PUBLISHED = json.loads((Path(__file__).parent / "configs" / "published.json").read_text())
EXITS = {  # hub id -> exits that a sweep takes, the default's name
    "llava-hf/llava-1.5-7b-hf": (25, "23"),
    "llava-hf/llava-1.5-13b-hf": (25, "23"),
    "llava-hf/llava-v1.6-mistral-7b-hf": (25, "23"),
    "llava-hf/llava-v1.6-vicuna-7b-hf": (25, "23"),
    "meta-llama/Llama-3.2-11B-Vision-Instruct": (33 + 8, "local:32"),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": (27, "26"),
    "OpenGVLab/InternVL3-1B-hf": (25, "24"),
    "google/paligemma-3b-mix-224": (28, "27"),
    "google/paligemma2-3b-mix-224": (28, "27"),
    "google/gemma-3-4b-it": (28, "27"),
    "HuggingFaceM4/Idefics3-8B-Llama3": (28, "27"),
    "HuggingFaceTB/SmolVLM-Instruct": (28, "27"),
    "Qwen/Qwen2.5-VL-7B-Instruct": (33, "32"),
    "Qwen/Qwen3-VL-8B-Instruct": (28, "27"),
}
PARAMETERS = {  # millions: encoder, projector, language model; by hand where the models' cards say them
    "llava-hf/llava-1.5-7b-hf": [
        304,
        21,
        6739,
    ],  # CLIP-L 304 M, Vicuna 6.74 B; 1024 · 4096 + 4096² + 2 · 4096
    "llava-hf/llava-1.5-13b-hf": [304, 31, 13017],
    "llava-hf/llava-v1.6-mistral-7b-hf": [304, 21, 7242],
    "llava-hf/llava-v1.6-vicuna-7b-hf": [304, 21, 6739],
    "meta-llama/Llama-3.2-11B-Vision-Instruct": [
        864,
        31,
        9775,
    ],  # 10.6 B in all on its card; 7680 · 4096 + 4096
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": [398, 17, 7616],
    "OpenGVLab/InternVL3-1B-hf": [304, 4, 494],  # InternViT-300M, Qwen2.5-0.5B
    "google/paligemma-3b-mix-224": [
        412,
        2,
        2509,
    ],  # SigLIP-So400m; Gemma-2B's 2,506.2 M and 1,216 more tokens
    "google/paligemma2-3b-mix-224": [412, 3, 2617],  # Gemma 2 2B's 2,614.3 M and as many more
    "google/gemma-3-4b-it": [417, 3, 3880],  # 417 M on its card
    "HuggingFaceM4/Idefics3-8B-Llama3": [413, 19, 8030],  # 8.03 B on its card
    "HuggingFaceTB/SmolVLM-Instruct": [413, 21, 1812],
    "Qwen/Qwen2.5-VL-7B-Instruct": [677, 0, 7616],  # the merger is inside the encoder
    "Qwen/Qwen3-VL-8B-Instruct": [576, 0, 8191],
}


def saved(config, folder):
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.slow
def test_real_sizes_have_the_right_exits(name, tmp_path):
    vlm = empty(saved(PUBLISHED[name], tmp_path))
    assert all(parameter.is_meta for parameter in vlm.model.parameters())
    assert (len(vlm.exits.all), vlm.exits.name(vlm.exits.default)) == EXITS[name]
    found = cost.encoder(vlm)
    assert [e.share for e in found.exits if e.default] == [1.0]
    sizes = (found.encoder_parameters, found.projector_parameters, found.language_parameters)
    assert [round(size / 1e6) for size in sizes] == PARAMETERS[name]


@pytest.mark.slow
def test_llama_3_2_has_both_tracks(tmp_path):
    exits = empty(saved(PUBLISHED["meta-llama/Llama-3.2-11B-Vision-Instruct"], tmp_path)).exits
    assert exits.parse("local:18") == (18,) == exits.parse("18")
    assert exits.parse("global:3") == (36,) and exits.name(36) == "global:3"
    assert exits.parse("local") == tuple(range(33)) and exits.parse("global") == tuple(range(33, 41))
    assert exits.parse("intermediate:5") == (46,) and 46 not in exits.all
    assert exits.group(18) == "middle" and exits.group(36) == "global"


@pytest.mark.slow
def test_llava_1_5_costs_what_it_does_by_hand(tmp_path):
    """A block of CLIP-L at 577 states: 2 · 577 · 12 · 1024² for its layers, 4 · 577² · 1024 for attention."""
    vlm = empty(saved(PUBLISHED["llava-hf/llava-1.5-7b-hf"], tmp_path))
    block = 2 * 577 * 12 * 1024**2 + 4 * 577**2 * 1024
    patches = 2 * 577 * 3 * 14 * 14 * 1024
    assert cost.flops(vlm, 0) == patches
    assert cost.flops(vlm, 23) == patches + 23 * block
    exits = cost.encoder(vlm).exits
    assert [e.blocks for e in exits] == list(range(25))
    in_a_block = 4 * (1024**2 + 1024) + 2 * 4 * 1024**2 + 5 * 1024 + 4 * 1024
    assert {a.parameters - b.parameters for a, b in zip(exits[1:], exits, strict=False)} == {in_a_block}


@pytest.mark.parametrize(
    "name", ["llava", "mllama", "internvl", "gemma3", "smolvlm", "qwen2_5_vl", "qwen3_vl"]
)
@pytest.mark.slow
def test_flops_are_those_that_torch_counts(name, tmp_path):
    """torch counts the matrices of a real forward pass; ours come from the shapes alone."""
    _, kind, config = tiny.FAMILIES[name]()
    config._attn_implementation = config.vision_config._attn_implementation = "eager"
    config.save_pretrained(tmp_path)
    vlm = empty(tmp_path)
    vlm.model = kind(config).eval()
    for exit in (0, 1, vlm.exits.layers):
        counted = {}
        for skipped in ([], vlm.all_blocks):
            unused = [*vlm.unused_blocks(exit), *skipped]
            with cost._without(unused), torch.no_grad(), FlopCounterMode(display=False) as counter:
                vlm.tower(**vlm.sample())
            counted[bool(skipped)] = counter.get_total_flops()
        in_blocks = cost.flops(vlm, exit) - (cost.flops(vlm, 0) if name != "mllama" else 0)
        if name == "mllama":  # at local:0 the global blocks run
            convolution = vlm.tower.patch_embedding.weight.numel()
            in_blocks -= 2 * vlm.states * convolution
        assert counted[False] - counted[True] == pytest.approx(in_blocks, rel=0.01)


@pytest.mark.slow
def test_time_is_measured_on_a_tower_with_weights(tmp_path):
    _, _, config = tiny.FAMILIES["qwen3_vl"]()
    config.save_pretrained(tmp_path)
    vlm = empty(tmp_path)
    found = cost.timed(vlm, cost.encoder(vlm), repeats=1)
    assert all(e.seconds > 0 for e in found.exits) and "CPU" in found.timed_on
    assert next(vlm.model.get_decoder().parameters()).is_meta  # the rest still has none


@pytest.mark.slow
def test_the_command_shows_it(tmp_path, capsys):
    folder = saved(PUBLISHED["llava-hf/llava-1.5-7b-hf"], tmp_path)
    assert main(["inspect", "--model", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "default exit 23" in shown and "23*" in shown and "6.74 B" in shown
    assert main(["inspect", "--model", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["default"] == "23" and len(told["exits"]) == 25 and told["exits"][18]["name"] == "18"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vision_feature_layer": [-2, -40]}, "out of range"),
        ({"vision_feature_layer": -40}, "out of range"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "own code"),
        ({"vision_config": 7}, "cannot be loaded"),
        ({"model_type": "gpt2", "vision_config": None}, "unknown|no vision|cannot be loaded"),
    ],
)
@pytest.mark.slow
def test_a_bad_config_is_one_sentence(tmp_path, change, says):
    with pytest.raises(LayeralignError, match=says):
        empty(saved(PUBLISHED["llava-hf/llava-1.5-7b-hf"] | change, tmp_path))


@pytest.mark.slow
def test_a_variant_is_refused_where_there_is_none(tmp_path):
    folder = saved(PUBLISHED["Qwen/Qwen3-VL-8B-Instruct"], tmp_path)
    assert "made of the exit's state" in empty(folder, variant="hold").variant
    with pytest.raises(
        LayeralignError, match="variant 'keep': family qwen3_vl has no such variant; expected drop, hold"
    ):
        empty(folder, variant="keep")


def closed(*_, **__):
    raise SystemExit("a socket was opened")


def without_a_network(*words):
    socket.socket.connect = socket.getaddrinfo = closed
    return main(list(words))


@pytest.mark.slow
def test_nothing_of_a_network_is_touched(tmp_path):
    folder = saved(PUBLISHED["llava-hf/llava-1.5-7b-hf"], tmp_path)
    made = children.start(without_a_network, "inspect", "--model", str(folder), out=tmp_path / "said")
    assert made.wait() == 0, made.said()


@pytest.mark.slow
def test_dropped_deepstack_needs_no_mergers(tmp_path):
    """Qwen3-VL-8B: three mergers of 4 · 1152 · (4 · 1152 + 4096) weights, their biases and norms beside."""
    folder = saved(PUBLISHED["Qwen/Qwen3-VL-8B-Instruct"], tmp_path)
    drop, hold = (cost.encoder(empty(folder, variant=variant)).exits for variant in ("drop", "hold"))
    one = 4608 * 4608 + 4608 + 4608 * 4096 + 4096 + 2 * 4608
    lacks = [b.parameters - a.parameters for a, b in zip(drop, hold, strict=True)]
    assert lacks == [3 * one] * 9 + [2 * one] * 8 + [one] * 8 + [0] * 3


@pytest.mark.slow
def test_llama_3_2_projects_one_exit_at_a_time(tmp_path):
    """Its output is 200 MB an exit at the real size: only one of them may live."""
    vlm = load(tiny.save("mllama", tmp_path))
    steps = vlm._states(lambda: vlm.tower(**vlm.sample()), vlm.exits.all)
    with torch.no_grad():
        first = weakref.ref(next(steps)[1])
        next(steps)
    assert first() is None
