"""Vision files for llama.cpp held against a run: which exit they come to, and what cannot be known."""

import struct
import time

import gguf
import numpy as np
import pytest

import layeralign
from layeralign import LayeralignError
from layeralign._util import bounded
from layeralign.cli import main
from test_check import TESTBED, make

VISION = TESTBED.config()["vision_config"]
LAYER = "clip.vision.feature_layer"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make(tmp_path_factory.mktemp("gguf") / "run")


def written(folder, *, blocks=7, projector="mlp", layers=None, tensors=("v.class_embd",), **fields):
    """A vision file as the converter for LLaVA writes it: of 8 blocks it keeps 7."""
    file = folder / "mmproj.gguf"
    writer = gguf.GGUFWriter(file, "clip")
    writer.add_string("clip.projector_type", projector)
    shape = {
        "block_count": blocks, "embedding_length": VISION["hidden_size"],
        "feed_forward_length": VISION["intermediate_size"],
        "attention.head_count": VISION["num_attention_heads"], "image_size": VISION["image_size"],
        "patch_size": VISION["patch_size"],
    }  # fmt: skip
    for name, value in (shape | fields).items():
        writer.add_uint32(f"clip.vision.{name}", value)
    if layers is not None:
        writer.add_array(LAYER, layers)
    for name in (*(f"v.blk.{at}.ln1.weight" for at in range(7)), *tensors):
        writer.add_tensor(name, np.zeros(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize(
    ("layers", "exit", "result"),
    [(None, 6, "inconclusive"), ([7], 7, "inconclusive"), ([3], 3, "fail"), ([0], 0, "fail")],
)
def test_the_exit_of_a_vision_file(run, tmp_path, layers, exit, result):
    """Without a layer, a converted LLaVA runs one block less than it was trained with (llama.cpp's issue 25817)."""
    found = layeralign.check(written(tmp_path, layers=layers), run)
    assert (found.exit, found.result) == (exit, result)
    if result == "inconclusive":
        assert "gives the class token to the language model" in found.why


def test_a_tower_without_a_class_token_may_pass(run, tmp_path, capsys):
    file = written(tmp_path, tensors=())
    assert layeralign.check(file, run).result == "pass"
    assert main(["check", str(file), "--against", str(run)]) == 0
    assert "it runs at exit 6 (with the weights that were scanned; none were seen here)" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"layers": [3, 7]}, "it joins the layers [3, 7]"),
        ({"layers": [8]}, "its feature_layer is 8, and it has 7 blocks"),
        ({"layers": [-2]}, "its feature_layer is -2, and it has 7 blocks"),
        ({"feature_layer": 3}, "its feature_layer is 3, not a list of layers"),
        ({"projector": "qwen2vl_merger"}, "its projector is 'qwen2vl_merger', whose exit is not known"),
        ({"blocks": 24}, "its block_count is 24, and it has 7 blocks"),
        ({"blocks": 0}, "its block_count is 0, and it has 7 blocks"),
        (
            {"embedding_length": 4096},
            "its clip.vision.embedding_length is 4096, and the scanned model's hidden_size",
        ),
        ({"tensors": ("v.post_ln.weight",)}, "it has a norm after the blocks"),
    ],
)
def test_what_is_not_known_of_a_vision_file_is_inconclusive(run, tmp_path, fields, why):
    found = layeralign.check(written(tmp_path, **fields), run)
    assert found.result == "inconclusive" and found.why.startswith(why)


def header(tensors, fields, rest=b""):
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, fields) + rest


def text(value):
    return struct.pack("<Q", len(value)) + value


HOSTILE = {
    "nothing": b"",
    "other": b"PK\x03\x04" * 20,
    "version": b"GGUF" + struct.pack("<IQQ", 99, 0, 0),
    "fields": header(0, 2**63),
    "tensors": header(2**63, 0),
    "text": header(0, 1, struct.pack("<Q", 2**40) + b"clip"),
    "array": header(0, 1, text(LAYER.encode()) + struct.pack("<IIQ", 9, 5, 2**62)),
    "nested": header(0, 1, text(LAYER.encode()) + struct.pack("<I", 9) * 50_000),
    "kind": header(0, 1, text(LAYER.encode()) + struct.pack("<I", 77)),
    "same": header(0, 2, (text(LAYER.encode()) + struct.pack("<II", 4, 3)) * 2),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_is_one_sentence(run, tmp_path, content, capsys, monkeypatch):
    monkeypatch.setattr(bounded, "SECONDS", 1)
    file = tmp_path / "mmproj.gguf"
    file.write_bytes(content + b"\0" * 64)
    started = time.monotonic()
    code = main(["check", str(file), "--against", str(run)])
    said = capsys.readouterr()
    assert code in (1, 3) and "bug" not in said.err and "Traceback" not in said.err
    assert len(said.err) < 400 and time.monotonic() - started < 20


@pytest.mark.slow
def test_random_damage_is_one_sentence(run, tmp_path):
    whole, rng = bytearray(written(tmp_path).read_bytes()), np.random.default_rng(0)
    for _ in range(20):
        broken = bytearray(whole)
        for at in rng.integers(4, 400, 3):
            broken[at] = int(rng.integers(256))
        (tmp_path / "broken.gguf").write_bytes(broken)
        try:
            layeralign.check(tmp_path / "broken.gguf", run)
        except LayeralignError as error:
            assert len(str(error)) < 400


@pytest.mark.parametrize("given", [{"revision": "main"}, {"adapter": "x"}, {"hf_overrides": {}}])
def test_what_a_vision_file_does_not_have_is_refused(run, tmp_path, given):
    with pytest.raises(LayeralignError, match="does not go with a GGUF file"):
        layeralign.check(written(tmp_path), run, **given)


def test_a_vision_file_that_is_not_there_is_named(run, tmp_path):
    with pytest.raises(LayeralignError, match=r"config .*gone.gguf: there is no such file"):
        layeralign.check(tmp_path / "gone.gguf", run)
