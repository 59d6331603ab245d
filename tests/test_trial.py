"""Untrusted tokenizers and chat templates: one sentence within the limits, or they work."""

import json
import resource
import shutil
import signal
import time

import pytest

import tiny
from layeralign import LayeralignError
from layeralign._util import bounded
from layeralign.judges.models.local import LocalSpeaker
from layeralign.vlm import checkpoint as checkpoints
from layeralign.vlm.load import load, tokenizer

LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
TEMPLATES = {
    "loops": LOOPS,
    "multiplies": "{{ 'x' * 20000000000 }}",
    "formats": "{{ '%20000000000d' % 1 }}",
    "doubles": "{% set a = namespace(t='xxxxxxxx') %}{% for i in range(60) %}{% set a.t = a.t ~ a.t %}{% endfor %}",
    "pads": "{{ 'x'|center(20000000000) }}",
    "only for pictures": "{% if messages[0].content[0].type == 'image' %}" + LOOPS + "{% endif %}",
    "only for long texts": "{% if messages[0].content | string | length > 3000 %}" + LOOPS + "{% endif %}",
    "only for an assistant's turn": "{% if messages[-1].role == 'assistant' %}" + LOOPS + "{% endif %}",
    "only for a system turn": "{% if messages[0].role == 'system' %}" + LOOPS + "{% endif %}",
    "only without an answer's start": "{% if not add_generation_prompt %}" + LOOPS + "{% endif %}",
    "only for a text of ours": "{% if 'layeralign' in messages | string %}" + LOOPS + "{% endif %}",
}


MULTIPLIES = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "x", "type_id": 0}}] * 2000
    + [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"],
    "special_tokens": {"x": {"id": "x", "ids": [0] * 20_000, "tokens": ["<pad>"] * 20_000}},
}
"""Puts 4 * 10^7 tokens before a text."""


@pytest.fixture
def copied(llava_dir, tmp_path):
    """A model's folder of one's own, and a function that changes the tokenizer's file."""
    folder = tmp_path / "model"
    shutil.copytree(llava_dir, folder)
    return folder


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(bounded, "SECONDS", 1)


def templated(folder, text):
    (folder / "chat_template.jinja").write_text(text)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("text", TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_without_end_or_measure_is_one_sentence(copied, hasty, text):
    started = time.monotonic()
    with pytest.raises(LayeralignError, match="image processor takes more than") as raised:
        load(templated(copied, text))
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400
    assert time.monotonic() - started < 10


@pytest.mark.slow
def test_the_real_limit_of_time_is_kept(copied):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.raises(LayeralignError, match="takes more than 8 s"):
        load(templated(copied, LOOPS))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert 7 < used < 25, f"{used:.1f} s of processor time"


@pytest.mark.slow
def test_a_huge_template_is_one_sentence(copied, hasty):
    with pytest.raises(LayeralignError, match="has 1 chat templates of"):
        load(templated(copied, "{{ messages[0].content }}" * 2_000_000))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("normalizer", {"type": "Replace", "pattern": {"String": "a"}, "content": "b" * 2_000_000}),
        ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        ("post_processor", lambda _: MULTIPLIES),
        ("decoder", {"type": "Replace", "pattern": {"Regex": "."}, "content": "b" * 2_000_000}),
        ("decoder", {"type": "Strip", "content": "a", "start": 2**60, "stop": 2**60}),  # panics
        ("model", lambda it: it | {"vocab": {k * (1 + 20_000 * (n == 40)): n for k, n in it["vocab"].items()}}),
    ],
)  # fmt: skip
def test_a_tokenizer_bomb_is_one_sentence(copied, hasty, part, value):
    file = copied / "tokenizer.json"
    content = json.loads(file.read_text())
    content[part] = value(content[part]) if callable(value) else value
    file.write_text(json.dumps(content))
    with pytest.raises(LayeralignError, match="image processor takes more than"):
        load(copied)
    with pytest.raises(LayeralignError, match="image processor takes more than"):
        tokenizer(checkpoints.find(str(copied)), "judge: model x")


def test_a_tokenizer_that_reads_no_text_is_one_sentence(copied):
    file = copied / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"] = {"type": "WordLevel", "vocab": {}, "unk_token": "x"}
    file.write_text(json.dumps(content))
    with pytest.raises(LayeralignError, match="its tokenizer: cannot be loaded"):
        load(copied)
    with pytest.raises(LayeralignError, match="its tokenizer: cannot be loaded"):
        tokenizer(checkpoints.find(str(copied)), "judge: model x")


@pytest.mark.slow
@pytest.mark.parametrize("size", [{"height": 10**5, "width": 10**5}, {"shortest_edge": 10**6}])
def test_an_image_processor_bomb_is_one_sentence(copied, size):
    file = copied / "processor_config.json"
    content = json.loads(file.read_text())
    content["image_processor"] |= {"size": size, "do_resize": True, "do_center_crop": False}
    file.write_text(json.dumps(content))
    with pytest.raises(LayeralignError, match="image processor takes more than 1 GiB, or crashes"):
        load(copied)
    with pytest.raises(LayeralignError, match="image processor takes more than 1 GiB, or crashes"):
        LocalSpeaker.load(str(copied), dtype="float32", sees=True)


@pytest.mark.slow
def test_a_picture_of_millions_of_tokens_is_one_sentence(copied, hasty):
    file = copied / "processor_config.json"
    content = json.loads(file.read_text()) | {"patch_size": 1}
    content["image_processor"]["crop_size"] = {"height": 3000, "width": 3000}
    file.write_text(json.dumps(content))
    with pytest.raises(LayeralignError, match="image processor takes more than"):
        load(copied)


@pytest.mark.slow
def test_a_small_picture_is_not_thousands_of_tiles(tmp_path):
    """Each picture of a scan would be, and they come in batches."""
    folder = tiny.save("idefics3", tmp_path / "model")
    file = folder / "processor_config.json"
    content = json.loads(file.read_text())
    content["image_processor"]["size"] = {"longest_edge": 4000}  # in tiles of 32 x 32 pixels
    file.write_text(json.dumps(content))
    with pytest.raises(LayeralignError, match="image processor takes more than"):
        load(folder)


@pytest.mark.slow
def test_a_template_that_refuses_is_no_bomb(copied):
    load(templated(copied, "{{ raise_exception('no') }}{{ messages[0].content }}"))


# --- the child itself


@pytest.mark.slow
def test_a_child_that_is_killed_or_panics_has_gone_too_far():
    class Panic(BaseException):
        """As pyo3's."""

    def panics():
        raise Panic

    def remembers_too_much():
        bytearray(2 * bounded.BYTES)

    def hides_it():
        try:
            remembers_too_much()
        except MemoryError as error:
            raise OSError("cannot load") from error

    assert bounded.excess(lambda: None) == ""
    assert bounded.excess(lambda: 1 / 0) == ""
    for do in (panics, remembers_too_much, hides_it, lambda: signal.raise_signal(signal.SIGTERM)):
        assert bounded.excess(do) == "takes more than 1 GiB, or crashes"


def test_a_child_that_waits_for_a_lock_decides_nothing(monkeypatch):
    monkeypatch.setattr(bounded, "_WAIT", 0.3)
    assert bounded.excess(lambda: time.sleep(60)) == ""


@pytest.mark.slow
def test_a_child_that_computes_on_a_busy_machine_has_gone_too_far(monkeypatch):
    monkeypatch.setattr(bounded, "_WAIT", 1.5)
    monkeypatch.setattr(bounded, "SECONDS", 0.2)
    monkeypatch.setattr(bounded, "_run", lambda do: do())  # without its own limit

    def computes():
        while True:
            pass

    assert bounded.excess(computes) == "takes more than 0.2 s"


@pytest.mark.slow
def test_a_child_that_gets_little_of_the_processor_is_waited_for(monkeypatch):
    monkeypatch.setattr(bounded, "_WAIT", 0.4)
    monkeypatch.setattr(bounded, "SECONDS", 1)

    def computes():
        while True:
            pass

    assert bounded.excess(computes) == "takes more than 1 s"


def test_an_interrupt_ends_the_child_too(monkeypatch):
    children = []
    fork = bounded.os.fork

    def watched():
        children.append(fork())
        return children[-1]

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bounded.os, "fork", watched)
    monkeypatch.setattr(bounded.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bounded.excess(signal.pause)
    with pytest.raises(ProcessLookupError):
        bounded.os.kill(children[0], 0)
