"""What `layeralign doctor` finds: nothing in sound models of every family, and the fault in each that has one."""

import json

import pytest
import torch

import recent
import tiny
from layeralign.cli import main
from layeralign.diagnosis import diagnose
from layeralign.vlm.load import load


def results(found):
    return {check.name: check.result for check in found.checks}


@pytest.mark.parametrize("name", tiny.FAMILIES)
@pytest.mark.slow
def test_a_sound_model_of_every_family_passes(name, tmp_path):
    found = diagnose(load(tiny.save(name, tmp_path)))
    assert {check.name: check.found for check in found.checks if check.result == "fail"} == {}
    open_ = {name for name, result in results(found).items() if result == "not checked"}
    assert open_ <= {"adapter", "features at the default exit"}
    assert ("features at the default exit" in open_) == (name == "mllama")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["blip2", "blip", "instructblip", "idefics", "kosmos2", "kosmos2_5"])
def test_a_sound_model_without_a_chat_template_passes(name, tmp_path):
    """Their processors write what goes before the text themselves."""
    found = diagnose(load(recent.save(name, tmp_path)))
    assert found.fine, [check for check in found.checks if check.result == "fail"]
    answers = next(check for check in found.checks if check.name == "answers at the default exit")
    assert answers.result == ("not checked" if name == "blip" else "pass")


@pytest.mark.slow
def test_the_bundled_model_in_a_table_and_as_json(capsys):
    assert main(["doctor", "--model", "testbed", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fine"] and len(found["checks"]) == 11
    assert main(["doctor", "--model", "testbed"]) == 0
    assert "10 of 10 answers are the same" in " ".join(capsys.readouterr().out.split())


def lose_the_text(vlm):
    vlm.processor.chat_template = "{% for m in messages %}USER: {{ m.role }} {% endfor %}"


def overflow(vlm):
    own = vlm.encode
    vlm.encode = lambda pictures, exits: {
        exit: [type(f)(f.tokens * (torch.inf if exit == 2 else 1), f.text, f.extras) for f in rows]
        for exit, rows in own(pictures, exits).items()
    }


def depend_on_neighbours(vlm):
    own = vlm.logits
    vlm.logits = lambda hidden: own(hidden).flip(-1) if len(hidden) > 1 else own(hidden)


def another_forward(vlm):
    own = vlm.logits
    vlm.logits = lambda hidden: own(hidden).flip(-1)


def break_a_weight(vlm):
    with torch.no_grad():
        next(vlm.model.parameters()).view(-1)[0] = torch.nan


def name_no_end(vlm):
    vlm.ends = {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "fails"),
    [
        (lose_the_text, "chat template"),
        (overflow, "range of the dtype, at every exit"),
        (depend_on_neighbours, "rows in one batch"),
        (another_forward, "answers at the default exit"),
        (break_a_weight, "weights"),
        (name_no_end, "ends of an answer"),
    ],
)
def test_a_fault_fails_its_check(fault, fails, tmp_path):
    vlm = load(tiny.save("llava", tmp_path))
    fault(vlm)
    assert results(diagnose(vlm))[fails] == "fail"


@pytest.mark.slow
def test_a_fault_is_an_exit_code(tmp_path, capsys):
    folder = tiny.save("llava", tmp_path)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}USER: {{ m.role }} {% endfor %}")
    assert main(["doctor", "--model", str(folder)]) == 2
    assert "writes the request's text 0 times" in " ".join(capsys.readouterr().out.split())
