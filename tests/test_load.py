import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from layeralign import LayeralignError
from layeralign.vlm.load import load


@pytest.fixture
def copy(llava_dir, tmp_path):
    return shutil.copytree(llava_dir, tmp_path / "model")


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_a_folder_loads_and_its_content_is_hashed(llava):
    assert llava.family == "llava"
    assert (llava.exits.layers, llava.exits.default) == (5, 4)
    hashes = llava.checkpoint.hashes
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= hashes.keys()
    assert all(len(value) == 64 for value in hashes.values())


def test_dtype(llava_dir):
    assert load(llava_dir, dtype="bfloat16").model.dtype == torch.bfloat16
    with pytest.raises(LayeralignError, match="dtype 'int4': expected one of float32"):
        load(llava_dir, dtype="int4")


@pytest.mark.parametrize("name", ["/no/such/folder", "./gone", "gone", "a/b/c"])
def test_a_model_that_is_not_there(name):
    with pytest.raises(LayeralignError, match="no such folder"):
        load(name)


def test_a_hub_id_without_network_is_one_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LayeralignError, match="no such folder here, and the hub could not be reached"):
        load("owner/name")


def test_a_file_and_a_folder_without_config(tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(LayeralignError, match="is a file"):
        load(tmp_path / "f")
    with pytest.raises(LayeralignError, match=r"no config\.json"):
        load(tmp_path)


def test_revision_is_for_hub_ids(llava_dir):
    with pytest.raises(LayeralignError, match="--revision is for hub ids"):
        load(llava_dir, revision="main")


def test_a_pickle_checkpoint_is_refused_without_being_opened(copy, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "it ran"), "w"))

    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(LayeralignError, match=r"only pytorch_model\.bin, a pickle"):
        load(copy)
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_remote_code_is_refused_without_being_run(copy, tmp_path, file):
    ran = tmp_path / "it ran"
    (copy / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    edit(copy / file, auto_map={"AutoConfig": "evil.Evil", "AutoModelForImageTextToText": "evil.Evil"})
    with pytest.raises(LayeralignError, match=f"{file} asks to run the checkpoint's own code"):
        load(copy)
    assert not ran.exists()


def test_a_model_that_is_no_vlm(tmp_path):
    LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                 num_attention_heads=1)).save_pretrained(tmp_path)  # fmt: skip
    with pytest.raises(LayeralignError, match="is no vision-language model"):
        load(tmp_path)


def test_a_family_that_transformers_does_not_know(copy):
    edit(copy / "config.json", model_type="llavax")
    with pytest.raises(LayeralignError, match=r"cannot be loaded .*does not recognize"):
        load(copy)


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_broken_config(copy, content):
    (copy / "config.json").write_text(content)
    with pytest.raises(LayeralignError, match=r"config\.json: (cannot be read|expected)"):
        load(copy)


def test_truncated_weights(copy):
    content = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(LayeralignError, match="cannot be loaded"):
        load(copy)


def test_missing_weights_are_not_made_up(copy):
    weights = load_file(copy / "model.safetensors")
    name = next(n for n in weights if "projector" in n)
    save_file({n: w for n, w in weights.items() if n != name}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(LayeralignError, match="lacks 1 weights"):
        load(copy)


def test_a_model_without_processor(copy):
    for file in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (copy / file).unlink()
    with pytest.raises(LayeralignError):
        load(copy)


@pytest.mark.parametrize("shard", ["w.bin", "sub/w.safetensors", "../w.safetensors", "gone.safetensors"])
def test_an_index_may_only_name_safetensors_beside_it(copy, shard):
    weights = copy / "model.safetensors"
    (copy / "sub").mkdir()
    for place in (copy / "sub" / "w.safetensors", copy.parent / "w.safetensors"):
        place.write_bytes(weights.read_bytes())
    torch.save(load_file(weights), copy / "w.bin")
    names = load_file(weights).keys()
    weights.rename(copy / "dummy.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(LayeralignError, match="names the weights"):
        load(copy)


def test_shards_are_loaded_and_hashed(copy, llava):
    (copy / "model.safetensors").unlink()
    llava.model.save_pretrained(copy, max_shard_size="20KB")
    loaded = load(copy)
    assert sum(name.endswith(".safetensors") for name in loaded.checkpoint.hashes) > 1
    ours, theirs = loaded.model.state_dict(), llava.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_an_adapter_beside_the_weights_is_refused(copy):
    (copy / "adapter_config.json").write_text("{}")
    with pytest.raises(LayeralignError, match="holds an adapter"):
        load(copy)


def test_a_checkpoints_own_generation_config_bends_nothing(copy, llava):
    edit(
        copy / "generation_config.json",
        num_beams=2,
        num_return_sequences=2,
        repetition_penalty=9.0,
        min_new_tokens=9,
    )
    own = load(copy).model.generation_config
    assert own.eos_token_id == llava.model.generation_config.eos_token_id
    assert (own.num_beams, own.num_return_sequences, own.repetition_penalty) in (
        (None, None, None),
        (1, 1, 1.0),
    )
    assert own.min_new_tokens is None


def test_a_processor_without_chat_template(copy):
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(LayeralignError, match="has no chat template"):
        load(copy)


def test_the_terminal_stays_quiet(llava_dir, capfd):
    load(llava_dir)
    assert capfd.readouterr() == ("", "")
