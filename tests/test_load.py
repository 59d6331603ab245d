import json
import os
import pickle
import shutil

import httpx
import pytest
import torch
import transformers
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled
from peft import LoraConfig, get_peft_model
from peft.utils import transformers_weight_conversion
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, LlavaForConditionalGeneration
from transformers.core_model_loading import WeightRenaming
from transformers.models.auto import (
    feature_extraction_auto,
    image_processing_auto,
    processing_auto,
    tokenization_auto,
)
from transformers.quantizers.quantizers_utils import should_convert_module

import tiny
from layeralign import LayeralignError
from layeralign._util import bounded
from layeralign.cases.case import Case
from layeralign.decode.checks import check
from layeralign.decode.decoding import Decoding
from layeralign.judges.models.local import LocalSpeaker
from layeralign.testing import _Shown, noise
from layeralign.training.modules import linear_layers
from layeralign.vlm import checkpoint, finite, limits
from layeralign.vlm import load as loading
from layeralign.vlm.checkpoint import find_adapter
from layeralign.vlm.identity import identity
from layeralign.vlm.load import _adapted, empty, load, tokenizer
from layeralign.vlm.placement import beside_the_language_model


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


@pytest.mark.slow
def test_dtype(llava_dir):
    assert load(llava_dir, dtype="bfloat16").model.dtype == torch.bfloat16
    with pytest.raises(LayeralignError, match="dtype 'int4': expected one of auto, float32"):
        load(llava_dir, dtype="int4")


@pytest.mark.parametrize("name", ["/no/such/folder", "./gone", "gone", "a/b/c"])
def test_a_model_that_is_not_there(name):
    with pytest.raises(LayeralignError, match="no such folder"):
        load(name)


def test_a_hub_id_without_network_is_one_sentence(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LayeralignError, match="no such folder, and the hub could not be reached"):
        load("owner/name")


def test_a_file_and_a_folder_without_config(tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(LayeralignError, match="is a file"):
        load(tmp_path / "f")
    with pytest.raises(LayeralignError, match=r"no config\.json"):
        load(tmp_path)


def test_revision_is_for_hub_ids(llava_dir):
    with pytest.raises(LayeralignError, match="is a folder, so --revision does not apply"):
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
    with pytest.raises(LayeralignError, match=f"{file} requires the checkpoint's own code"):
        load(copy)
    assert not ran.exists()


@pytest.mark.slow
@pytest.mark.parametrize("reads", [load, lambda folder: LocalSpeaker.load(str(folder), chat=False)])
def test_weights_that_change_while_they_are_loaded_are_refused(copy, monkeypatch, reads):
    """The run, or a judge's record, would have the hash of the weights before."""
    check = finite.check_weights

    def changing(*arguments):
        os.utime(copy / "model.safetensors")
        check(*arguments)

    monkeypatch.setattr(finite, "check_weights", changing)
    with pytest.raises(LayeralignError, match=r"model.safetensors changed while it was read"):
        reads(copy)


def test_a_template_in_a_folder_of_templates_is_hashed(copy):
    """Transformers gives a tokenizer that template in place of its own."""
    before = checkpoint.find(copy).hashes
    (copy / "additional_chat_templates").mkdir()
    (copy / "additional_chat_templates" / "default.jinja").write_text("other {{ messages[0]['content'] }}")
    found = checkpoint.find(copy)
    assert "other" in str(loading.tokenizer(found, "model").chat_template)
    assert found.hashes.keys() - before.keys() == {"additional_chat_templates/default.jinja"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["testbed", "natural"])
def test_a_checkpoint_with_the_name_of_a_testbed_is_not_passed_over(copy, monkeypatch, name):
    copy.rename(copy.parent / name)
    monkeypatch.chdir(copy.parent)
    with pytest.raises(LayeralignError, match=f"expected ./{name} for that checkpoint"):
        load(name)
    assert load(f"./{name}").name == f"./{name}"


def test_more_tensors_than_any_model_has_are_refused(copy, monkeypatch):
    monkeypatch.setattr(limits, "_MOST_TENSORS", 3)
    with pytest.raises(LayeralignError, match=r"its weights have \d+ tensors; the limit is 3"):
        load(copy)


@pytest.mark.parametrize("field", ["attn_implementation", "_attn_implementation", "experts_implementation"])
@pytest.mark.parametrize("value", ["someone/kernel", {"": "sdpa", "text_config": "someone/kernel"}])
def test_a_kernel_that_a_checkpoint_names_is_not_used(copy, field, value):
    """Transformers would download it from the hub and run it, where `kernels` is installed."""
    edit(copy / "config.json", **{field: value})
    for vlm in (load(copy), empty(copy)):
        for part in (vlm.model, vlm.tower, vlm.model.model.language_model):
            assert part.config._attn_implementation == "sdpa"
            assert "kernel" not in str(part.config._experts_implementation)


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("config.json", {"transformers_weights": "other/model.safetensors"}),
        ("config.json", {"configuration_files": ["config.4.0.0.json"]}),
        ("config.json", {"vision_config": {"model_type": "detr", "backbone": "owner/name"}}),
        ("tokenizer_config.json", {"gguf_file": "/other/model.gguf"}),
        ("tokenizer_config.json", {"vocab": "/other/vocab.txt"}),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["other/tokenizer.4.0.0.json"]}),
        ("processor_config.json", {"audio_tokenizer": {"audio_tokenizer_name_or_path": "/other"}}),
        ("audio_tokenizer_config.json", {"audio_tokenizer_name_or_path": "/other"}),
        ("special_tokens_map.json", {"merges": "/other/merges.txt"}),
        ("processor_config.json", {"image_processor": {"repo_path": "owner/name", "class_info_file": "x"}}),
    ],
)
def test_files_that_are_not_hashed_are_not_named(copy, file, fields):
    """Transformers loads the first three from there, so a run would be of other weights than it says."""
    (copy / file).exists() or (copy / file).write_text("{}")
    edit(copy / file, **fields)
    with pytest.raises(LayeralignError, match=f"{file} has .*, which names unchecked files"):
        load(copy)


@pytest.mark.parametrize(
    ("file", "field", "name"),
    [
        ("processor_config.json", "image_processor_type", "LlavaForConditionalGeneration"),
        ("preprocessor_config.json", "image_processor_type", "AutoModel"),
        ("preprocessor_config.json", "feature_extractor_type", "LlavaModel"),
        ("processor_config.json", "processor_class", "RagRetriever"),
        ("tokenizer_config.json", "tokenizer_class", "RagTokenizer"),
        ("config.json", "tokenizer_class", "AutoProcessor"),
    ],
)
def test_a_processor_that_is_no_processor_is_not_made(copy, monkeypatch, file, field, name):
    """The first two were made with the kernel of the hub that config.json names, where there is `kernels`."""
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", lambda *_, **__: pytest.fail("made"))
    for content in ({field: name}, {"image_processor": {field: name}}):
        kept = (copy / file).read_text() if (copy / file).exists() else None
        (copy / file).write_text(json.dumps({**json.loads(kept or "{}"), **content}))
        with pytest.raises(LayeralignError, match=f"{file} has {field}: {name}, which is no class for texts"):
            load(copy)
        (copy / file).unlink() if kept is None else (copy / file).write_text(kept)


def test_every_class_of_transformers_for_texts_and_pictures_is_one():
    known = [
        *tokenization_auto.TOKENIZER_MAPPING_NAMES.values(),
        *processing_auto.PROCESSOR_MAPPING_NAMES.values(),
        *feature_extraction_auto.FEATURE_EXTRACTOR_MAPPING_NAMES.values(),
    ]
    for one in image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES.values():
        known += one.values()
    assert len(known) > 300
    assert {name for name in known if name and not limits._READS.search(name)} == {"RagTokenizer"}


@pytest.mark.parametrize("name", ["vocab_file", "tokenizer_file", "normalizer_file", "a_new_field"])
@pytest.mark.parametrize(
    "file", ["tokenizer_config.json", "special_tokens_map.json", "processor_config.json"]
)
def test_a_file_outside_a_checkpoint_is_not_named(copy, tmp_path, monkeypatch, file, name):
    """What special_tokens_map.json names is read by 100 classes of tokenizers, and is not hashed."""
    shutil.copy(copy / "tokenizer.json", tmp_path / "other.json")
    (copy / file).exists() or (copy / file).write_text("{}")
    monkeypatch.chdir(tmp_path)
    for path in (str(tmp_path / "other.json"), "other.json", "/dev/null"):
        edit(copy / file, **{name: [{"a": path}]})
        with pytest.raises(LayeralignError, match=f"{file} names .*, a file outside the checkpoint"):
            load(copy)
    (tmp_path / "other.json").rename(tmp_path / "vocabulary")  # a name that other texts may be
    if name.endswith("_file"):
        edit(copy / file, **{name: "vocabulary"})
        with pytest.raises(LayeralignError, match=f"{file} names vocabulary, a file outside the checkpoint"):
            load(copy)
    monkeypatch.chdir(copy)
    (tmp_path / "link").symlink_to(copy)
    for path in ("tokenizer.json", f"../{copy.name}/tokenizer.json", str(tmp_path / "link/tokenizer.json")):
        edit(copy / file, **{name: path, "name_or_path": str(tmp_path / "other.json")})
        checkpoint.find(copy)
        checkpoint.find(tmp_path / "link")


def test_a_config_of_millions_of_values_is_not_read(copy):
    """31 MB of empty lists took 23 s, and 1.5 million fields a minute."""
    for file in ("config.json", "special_tokens_map.json", "chat_template.json"):
        kept = (copy / file).read_text() if (copy / file).exists() else None
        for many in ("[]," * 200_000 + "[]", "{}," * 200_000 + "[]", "[1" + ",1" * 400_000 + "]"):
            (copy / file).write_text('{"x": [' + many + "]}")
            with pytest.raises(LayeralignError, match=f"{file}: .* more than 300,000 values, the limit"):
                load(copy)
        (copy / file).unlink() if kept is None else (copy / file).write_text(kept)


def test_configs_of_many_values_together_are_not_read(copy):
    """Eight of 280,000 values each, in lists of 80 levels, took 16 s."""
    files = [copy / name for name in ("config.json", "special_tokens_map.json", "chat_template.json")]
    for file in files:
        content = json.loads(file.read_text()) if file.exists() else {"chat_template": "x"}
        file.write_text(json.dumps({**content, "x": [[]] * 60_000}))
    with pytest.raises(LayeralignError, match="its configs have more than 300,000 values, the limit"):
        load(copy)
    files[2].unlink()
    checkpoint.find(copy)


def test_thousands_of_templates_are_refused(copy):
    (copy / "additional_chat_templates").mkdir()
    for number in range(101):
        (copy / "additional_chat_templates" / f"{number}.jinja").write_text("x")
    with pytest.raises(LayeralignError, match=r"has 102 chat templates of 0\.0 MiB; the limits are 100 and"):
        load(copy)
    shutil.rmtree(copy / "additional_chat_templates")
    (copy / "chat_template.jinja").write_text("x" * 2**26)
    with pytest.raises(
        LayeralignError, match=r"has 1 chat templates of 64\.0 MiB; the limits are 100 and 32"
    ):
        load(copy)


@pytest.mark.parametrize("name", ["bpe.codes", "source.spm", "prophetnet.tokenizer"])
def test_every_file_of_a_tokenizer_is_hashed(copy, name):
    """PhoBERT's merges are in bpe.codes; a change of them is one of the model."""
    (copy / name).write_text("a")
    assert name in checkpoint.find(copy).hashes


def test_a_tokenizer_that_draws_lots_is_refused(tmp_path):
    copy = tiny.save("llava", tmp_path / "bpe")
    names = json.loads((copy / "tokenizer.json").read_text())
    model = names["model"]
    model |= {"merges": [["a", "a"]], "dropout": 0.5}
    model["vocab"]["aa"] = max(model["vocab"].values())
    (copy / "tokenizer.json").write_text(json.dumps(names))
    with pytest.raises(LayeralignError, match="its tokenizer reads a text otherwise each time"):
        load(copy)


def test_a_model_that_is_no_vlm(tmp_path):
    LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                 num_attention_heads=1)).save_pretrained(tmp_path)  # fmt: skip
    with pytest.raises(LayeralignError, match="is not a vision-language model"):
        load(tmp_path)


@pytest.mark.slow
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
    with pytest.raises(LayeralignError, match="weights cannot be read"):
        load(copy)


@pytest.mark.slow
def test_missing_weights_are_not_made_up(copy):
    weights = load_file(copy / "model.safetensors")
    name = next(n for n in weights if "projector" in n)
    save_file({n: w for n, w in weights.items() if n != name}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(LayeralignError, match="lacks 1 weights"):
        load(copy)


def shorten(folder, part, key):
    """Let the config have one layer less than the weights."""
    told = json.loads((folder / "config.json").read_text())
    told[part][key] -= 1
    edit(folder / "config.json", **{part: told[part]})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "part", "key", "layers", "has", "holds"), [
    ("llava", "vision_config", "num_hidden_layers", "vision_tower.encoder.layers", 3, 4),
    ("llava", "text_config", "num_hidden_layers", "language_model.layers", 1, 2),
    ("mllama", "vision_config", "num_global_layers", "global_transformer.layers", 1, 2),
    ("qwen3_vl", "vision_config", "depth", "visual.blocks", 3, 4),
])  # fmt: skip
def test_a_config_with_fewer_layers_than_the_weights_is_no_silent_exit(
    tmp_path, name, part, key, layers, has, holds
):
    tiny.save(name, tmp_path)
    shorten(tmp_path, part, key)
    with pytest.raises(LayeralignError, match=f"{layers} has {has} layers, but its weights hold {holds};"):
        load(tmp_path)


@pytest.mark.slow
def test_weights_that_the_class_leaves_out_on_purpose_are_no_surplus(copy, monkeypatch):
    weights = load_file(copy / "model.safetensors")
    weights |= {"vision_tower.vision_model.head.probe": torch.ones(1), "mtp.layers.0.weight": torch.ones(1)}
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    load(copy)
    shorten(copy, "vision_config", "num_hidden_layers")
    ignored = [r"vision_tower.*\.layers\.4\."]
    monkeypatch.setattr(LlavaForConditionalGeneration, "_keys_to_ignore_on_load_unexpected", ignored)
    assert load(copy).exits.layers == 4


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
    with pytest.raises(LayeralignError, match="lists the file"):
        load(copy)


@pytest.mark.slow
def test_shards_are_loaded_and_hashed(copy, llava):
    (copy / "model.safetensors").unlink()
    llava.model.save_pretrained(copy, max_shard_size="20KB")
    loaded = load(copy)
    assert sum(name.endswith(".safetensors") for name in loaded.checkpoint.hashes) > 1
    ours, theirs = loaded.model.state_dict(), llava.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_an_adapter_beside_the_weights_is_refused(copy):
    (copy / "adapter_config.json").write_text("{}")
    with pytest.raises(LayeralignError, match="is an adapter"):
        load(copy)


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_terminal_stays_quiet(llava_dir, capfd):
    load(llava_dir)
    assert capfd.readouterr() == ("", "")


HUB = {
    "llava-hf/llava-1.5-7b-hf": "llava",
    "llava-hf/llava-1.5-13b-hf": "llava",
    "llava-hf/llava-v1.6-mistral-7b-hf": "llava_next",
    "llava-hf/llava-v1.6-vicuna-7b-hf": "llava_next_vicuna",
    "meta-llama/Llama-3.2-11B-Vision-Instruct": "mllama",
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": "llava_onevision",
    "OpenGVLab/InternVL3-1B-hf": "internvl",
    "google/paligemma-3b-mix-224": "paligemma",
    "google/paligemma2-3b-mix-224": "paligemma2",
    "google/gemma-3-4b-it": "gemma3",
    "HuggingFaceM4/Idefics3-8B-Llama3": "idefics3",
    "HuggingFaceTB/SmolVLM-Instruct": "smolvlm",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2_5_vl",
    "Qwen/Qwen3-VL-8B-Instruct": "qwen3_vl",
}


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """An empty hub cache, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def cached(cache, name):
    """A tiny model where the hub's client keeps a download of that name; as it keeps it, by links."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    home = cache / f"models--{name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    blobs = tiny.save(HUB[name], home / "blobs")
    (home / "snapshots" / commit).mkdir(parents=True)
    for file in blobs.iterdir():
        (home / "snapshots" / commit / file.name).symlink_to(file)
    return commit


@pytest.mark.parametrize("name", HUB)
@pytest.mark.slow
def test_published_checkpoints_load_by_name(offline, name):
    """From the hub's cache, without network: the same path as with it, but for the download."""
    commit = cached(offline, name)
    vlm = load(name)
    assert (vlm.name, vlm.checkpoint.revision) == (name, commit)
    assert vlm.family == HUB[name].removesuffix("_vicuna").removesuffix("2")
    assert vlm.encode([noise(32, 32)], [vlm.exits.default])
    assert load(name, revision=commit).checkpoint.revision == commit
    assert len(empty(name).exits.all) == len(vlm.exits.all)


def test_what_is_not_in_the_cache_is_one_sentence_offline(offline):
    with pytest.raises(LayeralignError, match="HF_HUB_OFFLINE"):
        load("google/gemma-3-4b-it")


@pytest.mark.slow
@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_a_device_map(llava_dir, pictures, device_map):
    plain, mapped = load(llava_dir), load(llava_dir, device_map=device_map)
    one, other = (vlm.encode(pictures, [2])[2] for vlm in (plain, mapped))
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(one, other, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl"])
def test_a_tower_whose_weights_wait_on_disk(tmp_path, pictures, name):
    """accelerate sets forwards of its own on such modules; the cut works through them and leaves them."""
    folder = tiny.save(name, tmp_path / "model")
    plain = load(folder)
    parts = {f"model.{part}": "cpu" for part, _ in plain.model.model.named_children()} | {"lm_head": "cpu"}
    vlm = load(folder, device_map=parts | {plain.path_of(plain.tower): "disk"})
    assert next(vlm.tower.parameters()).is_meta and vlm.device.type == "cpu"
    for _ in range(2):
        one, other = (v.encode(pictures[:2], v.exits.all) for v in (plain, vlm))
        for exit in one:
            torch.testing.assert_close(other[exit][1].tokens, one[exit][1].tokens)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing where there is no CUDA")
def test_quantisation_without_cuda_is_one_sentence(llava_dir):
    with pytest.raises(LayeralignError, match="quantize 4bit: needs a CUDA GPU"):
        load(llava_dir, quantize="4bit")
    with pytest.raises(LayeralignError, match="expected 4bit or 8bit"):
        load(llava_dir, quantize="2bit")


@pytest.mark.slow
def test_an_adapter_beside_quantised_weights_does_what_it_does_inside_them(llava_dir, tmp_path):
    """Quantised weights are not merged into; seen on plain ones, where both ways can be compared."""
    config = LoraConfig(
        r=2, target_modules=linear_layers(load(llava_dir), "language"), init_lora_weights=False
    )
    get_peft_model(load(llava_dir).model, config).save_pretrained(tmp_path)
    adapter = find_adapter(tmp_path)
    ids = torch.tensor([[2, 30, 40, 50]])
    with torch.no_grad():
        logits = [
            _adapted(load(llava_dir).model, adapter, merge=merge)(input_ids=ids).logits
            for merge in (True, False)
        ]
        torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(logits[0], load(llava_dir).model(input_ids=ids).logits)


@pytest.mark.slow
def test_an_adapter_keeps_the_names_that_the_model_has(llava_dir, tmp_path, monkeypatch):
    """PEFT renames an adapter's weights as a checkpoint's, also those that have the model's names already."""
    renamed = [WeightRenaming(r"\.mlp\.", ".mlp.mlp.")]
    monkeypatch.setattr(transformers_weight_conversion, "get_model_conversion_mapping", lambda _: renamed)
    config = LoraConfig(
        r=2, target_modules=linear_layers(load(llava_dir), "language"), init_lora_weights=False
    )
    made = get_peft_model(load(llava_dir).model, config)
    made.save_pretrained(tmp_path)
    ids = torch.tensor([[2, 30, 40, 50]])
    with torch.no_grad():
        wanted = made(input_ids=ids).logits
        found = load(llava_dir, adapter=tmp_path, allow_base=True).model(input_ids=ids).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_quantisation_leaves_all_but_the_language_model_exact(tmp_path, name):
    """By the rule that transformers itself applies to the names of modules."""
    vlm = load(tiny.save(name, tmp_path))
    exact = beside_the_language_model(empty(tmp_path))
    inner = vlm.model.get_decoder()
    inside = {id(module) for module in inner.modules()}
    for where, module in vlm.model.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert should_convert_module(where, exact) == (id(module) in inside), where


def test_a_quantised_model_makes_another_run(llava):
    plain = identity(llava)
    llava.quantize = "4bit"
    try:
        assert identity(llava) != plain
    finally:
        llava.quantize = None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("config.json", {"model_type": []}, "is not a vision-language model"),
        ("config.json", {"model_type": {}}, "is not a vision-language model"),
        ("generation_config.json", {"eos_token_id": "x"}, "end token|cannot be loaded"),
        ("config.json", {"image_token_index": None}, "picture token|cannot be loaded"),
        ("config.json", {"image_token_index": 10**6}, "picture token"),
        ("processor_config.json", {"processor_class": "Gemma3Processor"}, "processor|cannot be loaded"),
        ("processor_config.json", {"processor_class": "Qwen2VLProcessor"}, "processor|picture"),
        ("processor_config.json", {"processor_class": "Idefics3Processor"}, "processor|picture"),
    ],
)
def test_what_does_not_fit_together_is_one_sentence(copy, file, change, says):
    edit(copy / file, **change)
    with pytest.raises(LayeralignError, match=says) as error:
        vlm = load(copy)
        check(vlm, [Case("c", "describe it.", "benign", _Shown(noise(32, 32)))], Decoding(1))
    assert "\n" not in str(error.value)


def shortened(llava_dir, folder, rows):
    """The same model with embeddings and logits for the first so many ids alone."""
    shutil.copytree(llava_dir, folder)
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            weights[name] = weights[name][:rows].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] = rows
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
def test_a_picture_token_past_the_embeddings_is_one_sentence(llava_dir, llava, tmp_path):
    rows = len(llava.tokenizer) - 1
    folder = shortened(llava_dir, tmp_path / "model", rows)
    edit(folder / "config.json", image_token_index=rows)
    says = rf"its picture token is {rows}, but it has only {rows} embeddings"
    with pytest.raises(LayeralignError, match=says) as error:
        load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_prompt_with_a_token_past_the_embeddings_is_one_sentence(tmp_path):
    folder = tiny.save("llava", tmp_path / "whole")
    last = load(folder).tokenizer("\xa0")["input_ids"][-1]
    vlm = load(shortened(folder, tmp_path / "model", last))
    check(vlm, [Case("c", "hi", "benign", _Shown(noise(32, 32)))], Decoding(1))
    with pytest.raises(
        LayeralignError, match=rf"case 'c': the prompt contains .* .token {last}., but model .* remove it"
    ):
        check(vlm, [Case("c", "hi\xa0there", "benign")], Decoding(1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma3", "paligemma"])
def test_a_picture_token_that_is_never_embedded_may_lie_past_the_embeddings(tmp_path, name):
    """Transformers embeds another in its place."""
    vlm = load(tiny.save(name, tmp_path))
    (feature,) = vlm.encode([noise(32, 32)], [2])[2]
    ids = torch.tensor([vlm.tokens(vlm.prompt("hi", picture=True), feature)])
    asked = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        within = vlm.hidden(ids, asked, [feature])
        beyond = vlm.embedding_rows + 3
        ids = ids.masked_fill(ids == vlm.picture_token_id, beyond)
        vlm.model.config.image_token_id = beyond
        torch.testing.assert_close(vlm.hidden(ids, asked, [feature]), within)
    vlm.processor.tokenizer.add_tokens([f"<{n}>" for n in range(4)])
    vlm.check_names()


def test_no_weights_is_no_device(llava_dir):
    with pytest.raises(LayeralignError, match="layeralign inspect, which needs none"):
        load(llava_dir, device_map="meta")


@pytest.mark.parametrize("name", ["llava", "mllama", "qwen3_vl"])
def test_an_encoder_without_blocks_is_refused(tmp_path, name):
    _, _, config = tiny.FAMILIES[name]()
    key = "depth" if name == "qwen3_vl" else "num_hidden_layers"
    config.save_pretrained(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    told["vision_config"][key] = 0
    (tmp_path / "config.json").write_text(json.dumps(told))
    with pytest.raises(LayeralignError, match=r"no blocks|cannot be loaded"):
        empty(tmp_path)


def test_a_gated_model_says_what_to_do(monkeypatch):
    def refuse(*_, **__):
        raise GatedRepoError("403", response=httpx.Response(403, request=httpx.Request("GET", "https://hub")))

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(
        LayeralignError, match="access is gated; accept its licence on the hub, then set HF_TOKEN"
    ):
        load("meta-llama/Llama-3.2-11B-Vision-Instruct")


@pytest.mark.parametrize(("file", "path", "value"), [
    ("config.json", ("text_config", "num_hidden_layers"), 10**9), ("config.json", ("vision_config", "num_hidden_layers"), 10**9),
    ("config.json", ("image_seq_length",), 10**9), ("processor_config.json", ("num_additional_image_tokens",), 10**9),
])  # fmt: skip
def test_a_config_beyond_its_weights_is_refused_before_anything_is_made(copy, file, path, value):
    content = json.loads((copy / file).read_text())
    inner = content
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    (copy / file).write_text(json.dumps(content))
    with pytest.raises(LayeralignError, match=rf"{file}: {path[-1]} is 1e\+09"):
        load(copy)


@pytest.mark.parametrize(
    ("key", "value"), [("vocab_size", 2_000_000), ("max_position_embeddings", 4_000_000)]
)
def test_a_config_whose_model_is_larger_than_its_weights_is_refused_before_it_is_made(copy, key, value):
    """Here 160 million numbers of embeddings, or of a table of positions that is in no file."""
    content = json.loads((copy / "config.json").read_text())
    if key == "max_position_embeddings":
        size = {"d_model": 40, "num_layers": 2, "attention_heads": 2, "ffn_dim": 64, "vocab_size": 260}
        content["text_config"] = {"model_type": "xglm", **size}
    content["text_config"][key] = value
    (copy / "config.json").write_text(json.dumps(content))
    with pytest.raises(LayeralignError, match=r"a model of its config\.json takes more than 1 GiB"):
        load(copy)


@pytest.mark.parametrize(("key", "value"), [
    ("factor", float("inf")), ("factor", float("nan")), ("factor", 1e308), ("original_max_position_embeddings", 10**30),
    ("factor", 10**400),
])  # fmt: skip
def test_numbers_of_rotary_embeddings_that_are_none_are_one_sentence(copy, key, value):
    content = json.loads((copy / "config.json").read_text())
    content["text_config"]["rope_parameters"] = {"rope_type": "dynamic", key: value}
    (copy / "config.json").write_text(json.dumps(content))
    with pytest.raises(LayeralignError, match=rf"config.json: {key} is .*, and the limit is 1,000,000,000"):
        load(copy)


def test_weights_of_another_shape_are_named(copy):
    """Transformers refers to a table that it has logged, which is not shown."""
    content = json.loads((copy / "config.json").read_text())
    content["text_config"]["intermediate_size"] = 80
    (copy / "config.json").write_text(json.dumps(content))
    with pytest.raises(
        LayeralignError,
        match=r"gives .*mlp.* the shape \[.*80.*\], and its file \[.*64.*\] \(such weights: 6\); ",
    ):
        load(copy)


def test_a_list_of_a_million_entries_is_refused(copy):
    """Several parts of an image processor copy and check it."""
    content = json.loads((copy / "processor_config.json").read_text())
    content["image_processor"]["image_mean"] = [0.5] * 100_001
    (copy / "processor_config.json").write_text(json.dumps(content))
    with pytest.raises(LayeralignError, match=r"processor_config\.json has a list of 100,001 entries"):
        load(copy)


def test_a_huge_generation_config_is_not_read(copy):
    with (copy / "generation_config.json").open("wb") as stream:
        stream.truncate(2**26)
    with pytest.raises(LayeralignError, match="is larger than 32 MiB, the limit"):
        load(copy)


@pytest.mark.slow
@pytest.mark.parametrize("path", [("num_labels",), ("text_config", "num_hidden_layers")])
def test_a_config_without_weights_is_refused_before_it_fills_the_memory(copy, path, monkeypatch):
    monkeypatch.setattr(bounded, "SECONDS", 2)  # the real limit is kept by a test of test_trial.py
    content = json.loads((copy / "config.json").read_text())
    (content if len(path) == 1 else content[path[0]])[path[-1]] = 10**9
    (copy / "config.json").write_text(json.dumps(content))
    with pytest.raises(LayeralignError, match=r"a model of its config\.json takes more than"):
        empty(copy)


@pytest.mark.slow
def test_what_is_no_file_or_far_too_large_is_not_read(copy):
    os.mkfifo(copy / "z.safetensors")
    assert load(copy).exits.layers == 5
    with (copy / "config.json").open("wb") as stream:
        stream.truncate(2**33)
    with pytest.raises(LayeralignError, match="is larger than 32 MiB, the limit"):
        load(copy)


@pytest.mark.slow
def test_truncated_weights_of_an_adapter(llava_dir, tmp_path, monkeypatch):
    get_peft_model(load(llava_dir).model, LoraConfig(target_modules=["q_proj"])).save_pretrained(
        str(tmp_path)
    )
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    refused = r"adapter .*adapter_model\.safetensors cannot be read"
    with pytest.raises(LayeralignError, match=refused):
        load(llava_dir, adapter=tmp_path, allow_base=True)
    with weights.open("wb") as stream:
        stream.truncate(2**33)  # it takes 14 s to hash 8 GiB, so the header is read first
    hashed = []
    monkeypatch.setattr(checkpoint, "_hash", lambda file, advance: hashed.append(file.name) or "0")
    with pytest.raises(LayeralignError, match=refused):
        load(llava_dir, adapter=tmp_path, allow_base=True)
    assert weights.name not in hashed


@pytest.mark.parametrize(
    "kind", ["AutoConfig", "AutoProcessor", "AutoTokenizer", "LlavaForConditionalGeneration"]
)
def test_no_library_reaches_the_hub_while_a_checkpoint_is_loaded(copy, monkeypatch, kind):
    """Whatever a config names; `local_files_only` is not passed on by each class of transformers."""
    given, tried = getattr(transformers, kind).from_pretrained, []

    def loaded(*words, **options):
        with pytest.raises(OfflineModeIsEnabled):
            HfApi(endpoint="http://127.0.0.1:9").model_info("owner/name")
        tried.append(kind)
        return given(*words, **options)

    monkeypatch.setattr(getattr(transformers, kind), "from_pretrained", loaded)
    load(copy) if kind != "AutoTokenizer" else tokenizer(checkpoint.find(copy), "model x")
    assert tried
    with pytest.raises(Exception, match="refused"):  # by nobody listening
        HfApi(endpoint="http://127.0.0.1:9").model_info("owner/name")
