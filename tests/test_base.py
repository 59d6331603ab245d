"""An adapter is put on the model that it was made for, or on another one by name and on the record."""

import json
import shutil

import pytest
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

import layeralign
from layeralign import LayeralignError
from layeralign._util.quiet import quiet
from layeralign.analysis.results import Results
from layeralign.analysis.summary import summarise
from layeralign.cli import main
from layeralign.runs.opening import open_run
from layeralign.vlm.adapter import base
from layeralign.vlm.checkpoint import Adapter, Checkpoint
from layeralign.vlm.identity import identity
from layeralign.vlm.load import load

COMMIT, OTHER = "0123456789abcdef" * 2 + "01234567", "f" * 40


@pytest.fixture(scope="module")
def trained(llava_dir, tmp_path_factory):
    """An adapter of ours, after one step."""
    folder = tmp_path_factory.mktemp("base") / "adapter"
    assert main(["align", "--model", str(llava_dir), "--cases", "testbed:train", "--limit", "16", "--method",
                 "consistency", "--steps", "1", "--rows", "8", "--exits", "1", "--max-new-tokens", "3", "--out",
                 str(folder)]) == 0  # fmt: skip
    return folder


@pytest.fixture
def other(llava_dir, tmp_path):
    """Another model of the same shape."""
    folder = shutil.copytree(llava_dir, tmp_path / "other")
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: 1.1 * one for name, one in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    return folder


def peft(llava_dir, folder, **config):
    """An adapter that layeralign did not train, whose config says this."""
    with quiet():
        model = get_peft_model(
            load(llava_dir).model, LoraConfig(r=2, target_modules=r".*language_model.*q_proj")
        )
        model.save_pretrained(folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return folder


@pytest.mark.slow
def test_our_adapter_of_another_base_of_the_same_shape_is_refused(trained, other, llava_dir):
    load(llava_dir, adapter=trained)
    with pytest.raises(LayeralignError, match=r"model\.safetensors.*--allow base \(allow_base=True") as error:
        load(other, adapter=trained)
    assert str(llava_dir) in str(error.value) and str(other) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_another_config_is_another_base_and_another_template_is_not(trained, llava_dir, tmp_path):
    folder = shutil.copytree(llava_dir, tmp_path / "copy")
    (folder / "README.md").write_text("mine")
    (folder / "chat_template.jinja").write_text((folder / "chat_template.jinja").read_text() + "{# mine #}")
    assert load(folder, adapter=trained).other_base == ""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vision_feature_layer": -3}))
    with pytest.raises(LayeralignError, match=r"\(other files: config\.json\), not on"):
        load(folder, adapter=trained)


@pytest.mark.slow
def test_what_was_allowed_is_in_the_run_and_before_its_figures(trained, other, llava_dir, tmp_path, capfd):
    scan = ["scan", "--model", str(other), "--adapter", str(trained), "--cases", "testbed", "--limit", "4", "--exits",
            "1,4", "--max-new-tokens", "3", "--out", str(tmp_path / "run")]  # fmt: skip
    assert main(scan) == 1
    assert not (tmp_path / "run").exists()
    assert main([*scan, "--allow", "base"]) == 0
    said = "The adapter was trained on a different model"
    out, err = capfd.readouterr()
    assert said in out and "allowed, and recorded in the run" in err
    with open_run(tmp_path / "run") as run:
        assert str(llava_dir) in run.identity["base"] and "model.safetensors" in run.identity["base"]
        assert summarise(Results.of(run)).base == run.identity["base"]
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "r.html")]) == 0
    assert said in (tmp_path / "r.html").read_text()
    capfd.readouterr()
    assert main(["card", str(tmp_path / "run")]) == 0
    assert "whose adapter was trained on" in capfd.readouterr().out
    assert main([*scan, "--allow", "weights"]) == 1
    plain = [*scan[:3], *scan[5:-1], str(tmp_path / "plain")]
    assert main(plain) == 0 and main(["compare", str(tmp_path / "plain"), str(tmp_path / "run")]) == 0
    out = " ".join(capfd.readouterr().out.split())
    assert said in out  # a comparison is about weights; it says whose they are


@pytest.mark.slow
def test_the_run_of_an_adapter_on_its_own_base_is_as_before(trained, llava_dir):
    assert "base" not in identity(load(llava_dir, adapter=trained, allow_base=True))


@pytest.mark.slow
@pytest.mark.parametrize("record", ["{}", '{"identity": null}', '{"identity": {"files": []}}'])
def test_a_record_without_hashes_leaves_the_name(llava_dir, tmp_path, record):
    folder = peft(llava_dir, tmp_path / "a", base_model_name_or_path="some/other-model")
    (folder / "training.json").write_text(record)
    with pytest.raises(LayeralignError, match="was trained on some/other-model, not on"):
        load(llava_dir, adapter=folder)


def test_a_damaged_list_of_training_cases_is_refused(tmp_path):
    assert Adapter("a", tmp_path).trained_on() == frozenset()
    (tmp_path / "trained_on.json").write_text('{"asked": "0f"}')
    with pytest.raises(LayeralignError, match=r"trained_on\.json: field 'asked' is '0f'; expected a list"):
        Adapter("a", tmp_path).trained_on()


@pytest.mark.slow
def test_adapters_from_elsewhere_are_known_by_the_name_of_their_base(llava_dir, tmp_path, capfd):
    load(llava_dir, adapter=peft(llava_dir, tmp_path / "own"))  # as PEFT itself wrote it
    assert capfd.readouterr().err == ""
    folder = peft(llava_dir, tmp_path / "a", base_model_name_or_path="llava-hf/llava-1.5-7b-hf")
    with pytest.raises(LayeralignError, match=r"was trained on llava-hf/llava-1\.5-7b-hf, not on"):
        load(llava_dir, adapter=folder)
    local = shutil.copytree(llava_dir, tmp_path / "LLaVA-1.5-7b-hf")
    assert load(local, adapter=folder).other_base == ""
    assert load(llava_dir, adapter=folder, allow_base=True).other_base == "llava-hf/llava-1.5-7b-hf"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", "  ", None])
def test_an_adapter_that_names_no_base_is_not_checked_and_that_is_said(llava_dir, tmp_path, capfd, name):
    folder = peft(llava_dir, tmp_path / "a", base_model_name_or_path=name)
    assert load(llava_dir, adapter=folder).other_base == ""
    err = capfd.readouterr().err
    assert err.startswith(f"note: adapter {folder}: ") and "was not checked" in err and err.count("\n") == 1


SNAPSHOT = f"/home/me/.cache/huggingface/hub/models--llava-hf--llava-1.5-7b-hf/snapshots/{COMMIT}"


@pytest.mark.parametrize(
    ("says", "revision", "model", "has", "found"),
    [
        ("llava-hf/llava-1.5-7b-hf", None, "llava-hf/llava-1.5-7b-hf", COMMIT, ""),
        ("llava-hf/llava-1.5-7b-hf/", "main", "/data/llava-1.5-7b-hf", None, ""),
        ("C:\\models\\llava-1.5-7b-hf", None, "llava-hf/llava-1.5-7b-hf", COMMIT, ""),
        (SNAPSHOT, None, "llava-hf/llava-1.5-7b-hf", COMMIT, ""),
        (SNAPSHOT, None, "/data/llava-1.5-7b-hf", None, "unchecked"),
        ("llava-hf/llava-1.5-7b-hf", COMMIT, SNAPSHOT, None, ""),
        ("llava-hf/llava-1.5-7b-hf", "v1", "llava-hf/llava-1.5-7b-hf", COMMIT, "unchecked"),
        (SNAPSHOT, None, "llava-hf/llava-1.5-7b-hf", OTHER, "refused"),
        ("llava-hf/llava-1.5-7b-hf", OTHER, "llava-hf/llava-1.5-7b-hf", COMMIT, "refused"),
        ("llava-hf/llava-1.5-7b-hf", OTHER, SNAPSHOT, None, "refused"),
        ("llava-hf/llava-1.5-13b-hf", None, "llava-hf/llava-1.5-7b-hf", COMMIT, "refused"),
        ("7b-hf", None, "llava-hf/llava-1.5-7b-hf", COMMIT, "refused"),
    ],
)  # fmt: skip
def test_which_names_are_the_same_model(tmp_path, capsys, says, revision, model, has, found):
    config = {"peft_type": "LORA", "base_model_name_or_path": says, "revision": revision}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    adapter, model = Adapter("a", tmp_path), Checkpoint(model, tmp_path / "somewhere", has)
    if found == "refused":
        with pytest.raises(
            LayeralignError, match=r"adapter a: was trained on .*, not on .*; load it with that model"
        ):
            base.check(adapter, model, allow=False)
        assert base.check(adapter, model, allow=True)
    else:
        assert base.check(adapter, model, allow=False) == ""
        assert ("was not checked" in capsys.readouterr().err) == (found == "unchecked")


@pytest.mark.slow
def test_the_api_takes_it_as_well(trained, other, tmp_path):
    vlm = layeralign.load(other, adapter=trained, allow_base=True)
    run = layeralign.scan(vlm, "testbed", tmp_path / "run", exits=[1], limit=4, max_new_tokens=2)
    assert "model.safetensors" in run.summary.to_json()["base"]
