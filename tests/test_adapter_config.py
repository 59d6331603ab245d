"""A stranger's adapter: nothing of it runs, what it names is bounded, and every refusal is one sentence."""

import json
import resource
import time

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file

from layeralign import LayeralignError
from layeralign.vlm.adapter import config
from layeralign.vlm.adapter.config import lora_config
from layeralign.vlm.checkpoint import find_adapter

MODULES = [f"model.layers.{n}.self_attn.{name}_proj" for n in range(300) for name in "qkvo"]
PLAIN = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}


def adapter(folder, rank=4, **fields):
    (folder / "adapter_config.json").write_text(json.dumps(PLAIN | fields))
    save_file(
        {"base_model.model.a.lora_A.weight": torch.zeros(rank, 16)}, folder / "adapter_model.safetensors"
    )
    return find_adapter(folder)


def test_what_peft_writes_is_read_as_it_was(tmp_path):
    given = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], use_rslora=True, rank_pattern={"q_proj": 2}
    )
    given.save_pretrained(str(tmp_path))
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    found = lora_config(adapter(tmp_path, **written), MODULES)
    same = ("r", "lora_alpha", "target_modules", "use_rslora", "rank_pattern", "use_dora", "bias")
    assert {name: getattr(found, name) for name in same} == {name: getattr(given, name) for name in same}
    assert found.inference_mode


def test_a_pattern_selects_what_peft_would_select(tmp_path):
    found = lora_config(adapter(tmp_path, target_modules=r".*\.[01]\.self_attn\.(q|v)_proj"), MODULES)
    assert sorted(found.target_modules) == [
        f"model.layers.{n}.self_attn.{name}_proj" for n in range(2) for name in "qv"
    ]


@pytest.mark.parametrize("fields", [
    {"megatron_config": {}, "megatron_core": "canary"}, {"megatron_core": "layeralign.__main__"},
    {"megatron_config": {"a": 1}}, {"layer_replication": [[0, 4], [2, 5]]}, {"eva_config": {"rho": 2.0}},
    {"loftq_config": {"loftq_bits": 4}}, {"corda_config": {"a": 1}}, {"trainable_token_indices": [1]},
    {"runtime_config": {"ephemeral_gpu_offload": True}}, {"target_parameters": ["a"]}, {"arrow_config": {"a": 1}},
    {"unheard_of": 1}, {"r": 10**9}, {"r": 0}, {"r": -1}, {"r": "4"}, {"r": True}, {"r": 1e300},
    {"rank_pattern": {"q_proj": 10**9}}, {"rank_pattern": {"(a+)+$": 2}}, {"alpha_pattern": {"(a+)+$": 2}},
    {"lora_alpha": float("nan")}, {"lora_dropout": 2}, {"bias": "x"}, {"modules_to_save": ["(a+)+$"]},
    {"target_modules": "(.*)*x" + "(a+)+" * 20 + "$"}, {"target_modules": "(((((" * 300}, {"target_modules": "["},
    {"target_modules": "nothing"}, {"target_modules": "((?1)|.*)*"}, {"target_modules": "a" * 10**6}, {"target_modules": ["(a+)+$"]},
    {"target_modules": {"a": 1}}, {"exclude_modules": "(a+)+$"}, {"layers_pattern": "(a+)+$"},
    {"rank_pattern": {f"x{n}": 4 for n in range(100_000)}}, {"alpha_pattern": {f"x{n}": 4 for n in range(100_000)}},
    {"layers_pattern": [f"x{n}" for n in range(100_000)]}, {"target_modules": [f"x{n}" for n in range(100_000)]},
    {"use_dora": "yes"}, {"layers_to_transform": ["x"]}, {"init_lora_weights": "pissa"}, {"peft_type": "OFT"},
    {"init_lora_weights": "x" * 10**6}, {"peft_type": "x" * 10**6},
])  # fmt: skip
def test_everything_else_is_refused_in_a_sentence_in_time_and_memory(tmp_path, fields):
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(LayeralignError, match="adapter") as error:
        lora_config(adapter(tmp_path, **fields), MODULES)
    assert len(str(error.value)) < 400
    assert time.monotonic() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # KiB


def test_more_tensors_than_an_adapter_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "_TENSORS", 0)
    with pytest.raises(LayeralignError, match=r"adapter_model.safetensors has 1 tensors; the limit is 0"):
        lora_config(adapter(tmp_path), MODULES)


@pytest.mark.parametrize(("kind", "shape", "says"), [
    ("F8_E4M3", [4, 16], "holds numbers of F8_E4M3; expected F32"), ("F4", [4, 32], "holds numbers of F4"),
    ("I8", [4, 16], "holds numbers of I8"), ("BOOL", [4, 16], "holds numbers of BOOL"),
    ("F32", [4, 4] + [1] * 1_000_000, "has a tensor of 1,000,002 dimensions"),
])  # fmt: skip
def test_tensors_that_no_adapter_has_are_refused(tmp_path, kind, shape, says):
    found, start = adapter(tmp_path), time.monotonic()
    about = {"dtype": kind, "shape": shape, "data_offsets": [0, 64]}
    header = json.dumps({"base_model.model.a.lora_A.weight": about}).encode()
    content = len(header).to_bytes(8, "little") + header + b"\1" * 64
    (tmp_path / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(LayeralignError, match=says) as error:
        lora_config(found, MODULES)
    assert len(str(error.value)) < 400 and time.monotonic() - start < 5


def test_a_harmless_value_of_an_unknown_field_is_ignored(tmp_path):
    assert lora_config(adapter(tmp_path, new_in_peft_2=None, other=False, third={}), MODULES).r == 4
