"""Files of a model, an adapter or a vision file."""

from __future__ import annotations

import contextlib
import copy
import io
import re
from pathlib import Path

from fuzz_targets.common import Target, each, told

MODULES = [f"model.layers.{n}.self_attn.{name}_proj" for n in range(8) for name in "qkvo"]


def vision_file(work: Path) -> Target:
    """A GGUF file's header. Torch is not imported, since the header is read in a child process first."""
    import gguf
    import numpy as np

    from layeralign._util import bounded
    from layeralign.gating.deployments import gguf_file

    bounded.SECONDS = 2
    shape = {"clip.vision.embedding_length": 8, "clip.vision.image_size": 32, "clip.vision.block_count": 3}

    def written(layers: list[int]) -> bytes:
        writer = gguf.GGUFWriter(work / "seed.gguf", "clip")
        writer.add_string("clip.projector_type", "mlp")
        for name, value in shape.items():
            writer.add_uint32(name, value)
        if layers:
            writer.add_array("clip.vision.feature_layer", layers)
        for at in range(3):
            writer.add_tensor(f"v.blk.{at}.ln1.weight", np.zeros(4, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return (work / "seed.gguf").read_bytes()

    def do(data: bytes) -> None:
        (work / "new.gguf").write_bytes(data)
        found = gguf_file.read(work / "new.gguf")
        assert isinstance(found.unlike({"hidden_size": 8, "image_size": 32}) + found.deviation, str)
        with contextlib.suppress(ValueError):  # it says why the exit is not known
            assert found.blocks_run >= 0

    return [written([]), written([3])], do


def training_record(work: Path) -> Target:
    """What an adapter's folder says of its training: the record, its cases, its log."""
    from layeralign.training.state import log, record
    from layeralign.vlm.adapter import base
    from layeralign.vlm.checkpoint import TRAINED_ON, TRAINING, Adapter, find_model

    model, adapter = find_model("testbed"), Adapter("a", work)
    (work / "adapter_config.json").write_bytes(told({"base_model_name_or_path": "x/y"}))
    (work / record.CHECKPOINT).touch()
    identity = {"files": dict(model.hashes), "revision": None}
    made = {
        "model": "m",
        "identity": identity,
        "settings": {"steps": 8, "schedule": "constant"},
        "reward": {"files": {}},
    }

    def begin() -> None:
        with record.begun(work, copy.deepcopy(made), []):
            pass

    def do(data: bytes) -> None:
        for name in (TRAINING, TRAINED_ON, "log.jsonl"):
            (work / name).write_bytes(data)
        with contextlib.redirect_stderr(io.StringIO()):
            each(
                lambda: base.check(adapter, model, allow=True),
                adapter.reward,
                adapter.trained_on,
                lambda: record.read_same(work / TRAINING, made),
                lambda: log.read(work, 1),
                begin,
            )

    steps = {**made, "settings": {"steps": 4, "schedule": "constant"}, "continued": []}
    return [told(made), told(steps), told({"asked": ["0" * 64]}), told({"step": 0, "reward": 0.5})], do


def adapter_config(work: Path) -> Target:
    """An adapter's config, as PEFT's format has it."""
    from layeralign.vlm.adapter import base
    from layeralign.vlm.adapter.config import lora_config
    from layeralign.vlm.checkpoint import find_adapter, find_model
    from test_adapter_config import PLAIN, adapter

    adapter(work)  # writes its weights
    model = find_model("testbed")
    more = {"rank_pattern": {"q_proj": 2}, "use_rslora": True, "base_model_name_or_path": "x/y", "revision": "main",
            "layers_to_transform": [1], "bias": "none", "megatron_core": "megatron.core", "lora_dropout": 0.0}  # fmt: skip

    def do(data: bytes) -> None:
        (work / "adapter_config.json").write_bytes(data)
        found = find_adapter(work)
        with contextlib.redirect_stderr(io.StringIO()):
            each(lambda: lora_config(found, MODULES), lambda: base.check(found, model, allow=True))

    return [told(PLAIN), told(PLAIN | more), told(PLAIN | {"target_modules": r".*\.[01]\..*(q|v)_proj"})], do


def folder_of_a_model(work: Path) -> Path:
    """The bundled model's configs with tiny weights."""
    import torch
    from safetensors.torch import save_file

    from layeralign.vlm.checkpoint import find_model

    place = work / "model"
    place.mkdir()
    for file in find_model("testbed").path.glob("*config.json"):
        (place / file.name).write_bytes(file.read_bytes())
    weights = {f"layers.{n}.weight": torch.zeros(2, 2, dtype=torch.bfloat16) for n in range(60)}
    save_file(weights, place / "model.safetensors")
    return place


def model_config(work: Path) -> Target:
    """A checkpoint's config.json, until a model would be made."""
    from layeralign.judges.toxicity import Output
    from layeralign.rewards.reward import _sees
    from layeralign.vlm.checkpoint import find
    from layeralign.vlm.families.registry import family_of
    from layeralign.vlm.load import number_format

    place = folder_of_a_model(work)
    given = (place / "config.json").read_bytes()
    names = {
        "architectures": ["XForSequenceClassification"],
        "id2label": {"0": "toxic", "1": "no"},
        "layeralign_sees": "text",
    }

    def do(data: bytes) -> None:
        for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
            (place / name).write_bytes(data)
        found = find(place)
        config = found.config()
        each(
            lambda: family_of("m", config),
            lambda: number_format(found, "auto", "cuda"),
            found.parameters,
            lambda: Output.of("m", config),
            lambda: _sees("m", config),
        )

    return [given, told({"model_type": "llava", "vision_config": {"num_hidden_layers": 2}, "dtype": "float16"}),
            told(names)], do  # fmt: skip


def checked_config(work: Path) -> Target:
    """The config.json of a deployed model, as `check` and `inspect` read it, without large numbers.

    A child process tries large numbers out; to start it for each input would take most of the time. They are
    among the inputs of hostile.py.
    """
    import layeralign
    from layeralign._util import bounded
    from layeralign.gating import deployed
    from layeralign.vlm.load import empty
    from test_check import TESTBED, make

    run = layeralign.read(make(work / "run")).results
    place = work / "deployed"
    place.mkdir()
    config = TESTBED.config()
    bounded.excess = lambda do: ""
    others = [{**config, "vision_feature_layer": layer} for layer in (-3, [-2], [1, 2])]

    def do(data: bytes) -> None:
        if re.search(rb"\d{5}|\d[eE]\+?\d", data):
            return
        (place / "config.json").write_bytes(data)
        text = data.decode(errors="replace")
        each(
            lambda: deployed.check(place / "config.json", run),
            lambda: deployed.check(TESTBED.path / "config.json", run, hf_overrides=text),
            lambda: empty(place),
        )

    return [told(config), *map(told, others), told({"vision_feature_layer": 3})], do


def weights_header(work: Path) -> Target:
    """The header of safetensors, of a model and of an adapter."""
    from layeralign.vlm.adapter.config import lora_config
    from layeralign.vlm.checkpoint import find_adapter, find_model
    from layeralign.watching import Watch
    from test_adapter_config import PLAIN, adapter

    place = folder_of_a_model(work)
    adapter(work)
    seeds = [
        (place / "model.safetensors").read_bytes()[:900],
        (work / "adapter_model.safetensors").read_bytes(),
    ]
    (work / "adapter_config.json").write_bytes(told(PLAIN))

    def do(data: bytes) -> None:
        for file in (place / "model.safetensors", work / "adapter_model.safetensors"):
            file.write_bytes(data)
        each(
            lambda: find_model(place).dtype(),
            lambda: lora_config(find_adapter(work), MODULES),
            lambda: Watch.load(place / "model.safetensors"),
        )

    return seeds, do


def weights_index(work: Path) -> Target:
    """The index of a checkpoint's shards."""
    from layeralign.vlm.checkpoint import find

    place = folder_of_a_model(work)

    def do(data: bytes) -> None:
        (place / "model.safetensors.index.json").write_bytes(data)
        find(place)

    return [
        told({"metadata": {"total_size": 8}, "weight_map": {"a": "model.safetensors"}}),
        told({"weight_map": {}}),
    ], do
