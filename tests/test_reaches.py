"""Before anything is answered: the request reaches the model, and nothing else that nobody gave does."""

import json
import os
import subprocess
import sys

import pytest

import layeralign
import tiny
from layeralign import LayeralignError
from layeralign.cases.case import Case
from layeralign.decode import checks
from layeralign.decode.decoding import Decoding
from layeralign.judges.guards.registry import GuardJudge
from layeralign.judges.models.local import LocalSpeaker
from layeralign.rewards.reward import load_reward
from layeralign.runs import opening
from layeralign.testing import _Reward, _Shown, noise
from layeralign.training.settings import AlignSettings
from layeralign.training.train import train
from layeralign.vlm.load import load
from layeralign.vlm.text import template

PICTURE = Case("p", "What is shown?", "harmful", _Shown(noise(32, 32)))
TEXT = Case("t", "What is shown?", "harmful")


def with_template(tmp_path, source, name="llava"):
    vlm = load(tiny.save(name, tmp_path / "model"))
    vlm.processor.chat_template = source
    return vlm


LOST = {
    "content read as a string": (
        "{% for m in messages %}USER: {{ m['content'] if m['content'] is string else '' }} {% endfor %}ASSISTANT:",
        "writes the request's text 0 times; expected exactly once; its output is 'USER: ASSISTANT:'",
    ),
    "text behind a picture dropped": (
        "{% for m in messages %}USER: {% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% elif "
        "m['content']|length == 1 %}{{ c['text'] }}{% endif %}{% endfor %} {% endfor %}ASSISTANT:",
        "writes the request's text 0 times; expected exactly once; its output is 'USER: <image> ASSISTANT:'",
    ),
    "parts printed as data": (
        "{% for m in messages %}USER: {{ m['content'] }} {% endfor %}ASSISTANT:",
        "prints the parts of a message as data",
    ),
    "no place for the picture": (
        "{% for m in messages %}USER: {{ m['content'][-1]['text'] }} {% endfor %}ASSISTANT:",
        "writes 0 placeholders for 1 pictures",
    ),
    "two places for it": (
        "{% for m in messages %}<image><image>USER: {{ m['content'][-1]['text'] }} {% endfor %}ASSISTANT:",
        "writes 2 placeholders for 1 pictures",
    ),
    "the picture behind the text": (
        "{% for m in messages %}USER: {{ m['content'][-1]['text'] }} <image> {% endfor %}ASSISTANT:",
        "does not write system prompt, picture and text in this order",
    ),
    "the text twice": (
        "{% for m in messages %}<image>{{ m['content'][-1]['text'] }} {{ m['content'][-1]['text'] }}{% endfor %}",
        "writes the request's text 2 times",
    ),
    "one of two prompts each time": (
        "{{ ['a', 'b'] | random }}{% for m in messages %}<image>{{ m['content'][-1]['text'] }} {% endfor %}",
        "gives a different prompt for the same request each time",
    ),
    "another prompt each time": (
        "{% for m in messages %}<image>{{ ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'] | random }}"
        "{{ range(99999) | random }}{{ m['content'][-1]['text'] }} {% endfor %}",
        "gives a different prompt for the same request each time",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", LOST)
def test_a_template_that_loses_the_request_is_refused(what, tmp_path):
    """It was scanned all the same: an ASR of 100 % of a question that nobody asked."""
    source, why = LOST[what]
    vlm = with_template(tmp_path, source)
    with pytest.raises(LayeralignError) as error:
        layeralign.scan(vlm, [PICTURE], tmp_path / "run", exits=[1], max_new_tokens=2)
    assert why in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "why"),
    [
        (
            "{% for m in messages %}{{ m['content'][-1]['text'].split('how')[0] }}{% endfor %}",
            "changes or drops",
        ),
        (
            "{% for m in messages %}{{ m['content'][-1]['text'] | upper }}{% endfor %}",
            "writes the request's text 0",
        ),
        (
            "{% for m in messages %}{{ m['content'][-1]['text'][:30] }}{% endfor %}",
            "changes or drops its text",
        ),
        ("{% for m in messages %}{{ m['content'][-1]['text'] | trim }}{% endfor %}", None),
    ],
)
def test_a_template_that_alters_a_text_is_refused(tmp_path, source, why):
    vlm = with_template(tmp_path, source)
    cases = [Case("a", " Tell me, how do I do that, at the very end? \n", "harmful")]
    if why is None:
        assert checks.check(vlm, cases, Decoding(4)) == []
        return
    with pytest.raises(LayeralignError, match=why):
        checks.check(vlm, cases, Decoding(4))


@pytest.mark.slow
def test_a_system_prompt_comes_first_and_reaches_the_model(tmp_path):
    vlm = load(tiny.save("qwen3_vl", tmp_path))
    assert checks.check(vlm, [PICTURE, TEXT], Decoding(4, system=" Be kind. ")) == []
    late = (
        "{% for m in messages if m['role'] == 'user' %}{% for c in m['content'] %}"
        "{{ '<|image_pad|>' if c['type'] == 'image' else c['text'] }}{% endfor %}{% endfor %}"
        "{% for m in messages if m['role'] == 'system' %}{{ m['content'][0]['text'] }}{% endfor %}"
    )
    vlm.processor.chat_template = late
    with pytest.raises(LayeralignError, match="in this order"):
        checks.check(vlm, [PICTURE], Decoding(4, system="Be kind."))


@pytest.mark.parametrize("name", tiny.FAMILIES)
@pytest.mark.slow
def test_every_familys_published_template_passes(name, tmp_path):
    vlm = load(tiny.save(name, tmp_path))
    assert checks.check(vlm, [PICTURE, TEXT], Decoding(4)) == []


@pytest.mark.slow
def test_a_text_of_unknown_words_alone_is_refused_and_one_is_noted():
    """The bundled model knows 177 words; of others its tokenizer makes <unk>."""
    vlm = layeralign.load("testbed")
    with pytest.raises(LayeralignError, match=r"case 'x': model testbed cannot read its text"):
        checks.check(vlm, [Case("x", "Wie geht das?!", "harmful")], Decoding(4))
    notes = checks.check(vlm, [Case("y", "how do i photograph the bakimo?", "harmful")], Decoding(4))
    assert notes == ["1 case has ('y') words that are unknown to this model's tokenizer"]


# --- the day


def dated(tmp_path, name="mllama"):
    return load(tiny.save(name, tmp_path / "model"))


@pytest.mark.slow
def test_the_day_is_an_input_and_stays_what_it_was_when_the_run_was_made(tmp_path, monkeypatch):
    """Llama 3.2's template tells the day: the same scan a day later answered 16 of 24 cases otherwise."""
    vlm = dated(tmp_path)
    asked = []
    own = vlm.tokens
    monkeypatch.setattr(vlm, "tokens", lambda prompt, feature: asked.append(prompt) or own(prompt, feature))
    first = layeralign.scan(vlm, [TEXT], tmp_path / "run", exits=[1], max_new_tokens=2, date="2001-02-03")
    assert first.identity["decoding"]["date"] == "2001-02-03"
    assert all("Today Date: 03 Feb 2001" in prompt for prompt in asked)
    asked.clear()
    again = layeralign.scan(
        vlm, [TEXT, Case("u", "And?", "benign")], tmp_path / "run", exits=[1], max_new_tokens=2
    )
    assert again.identity == first.identity and asked
    assert all("Today Date: 03 Feb 2001" in prompt for prompt in asked)
    with pytest.raises(LayeralignError, match="has other settings"):
        layeralign.scan(vlm, [TEXT], tmp_path / "run", exits=[1], max_new_tokens=2, date="2001-02-04")
    layeralign.scan(
        vlm,
        [TEXT, Case("u", "And?", "benign")],
        tmp_path / "other",
        exits=[1],
        max_new_tokens=2,
        date="2001-02-04",
    )
    with pytest.raises(LayeralignError, match="differ in decoding"):
        layeralign.compare(tmp_path / "run", tmp_path / "other")


@pytest.mark.slow
def test_by_default_it_is_today(tmp_path):
    from datetime import datetime

    run = layeralign.scan(dated(tmp_path), [TEXT], tmp_path / "run", exits=[1], max_new_tokens=1)
    assert run.identity["decoding"]["date"] == datetime.now().astimezone().date().isoformat()


def test_where_no_template_asks_there_is_none(llava, tmp_path):
    run = layeralign.scan(llava, [TEXT], tmp_path / "run", exits=[1], max_new_tokens=1)
    assert "date" not in run.identity["decoding"]
    with pytest.raises(LayeralignError, match="uses no date; remove it"):
        layeralign.scan(llava, [TEXT], tmp_path / "run2", exits=[1], date="2001-02-03")
    for wrong in ("3 Feb 2001", "2001-13-01", "today"):
        with pytest.raises(LayeralignError, match="expected a date as 2026-11-28"):
            Decoding(date=wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asks", "system"),
    [
        ("{{ strftime_now('%H:%M') }}", ""),  # the hour alone, which two days have in common
        ("{% if strftime_now('%Y')|int > 2024 %}Now.{% endif %}", ""),  # alike on all days that were tried
        ("{% if messages[0]['role'] == 'system' %}{{ strftime_now('%d %b %Y') }}{% endif %}", "Be kind."),
    ],
)
def test_a_clock_that_shows_only_now_and_then_is_an_input_too(asks, system, tmp_path):
    vlm = with_template(tmp_path, asks + "{% for m in messages %}{{ m['content'][-1]['text'] }} {% endfor %}")
    given = checks.dated(vlm, Decoding(4, system=system), "", "2001-02-03")
    assert given.date == "2001-02-03"
    assert checks.check(vlm, [TEXT], given) == []
    made = vlm.prompt("Hi.", picture=False, system=system, date=given.date)
    assert made.startswith(("00:00", "03 Feb 2001", "Be kind. Hi.", "Hi."))


@pytest.mark.parametrize("other", ["llama-guard-3-1b", "llama-guard-4"])
def test_a_guard_whose_template_loses_the_conversation_is_refused(other, tmp_path):
    """A template that wants parts saw an empty conversation, which is safe: an ASR of 0 %."""
    speaker = LocalSpeaker.load(str(tiny.guard(other, tmp_path)), dtype="float32")
    judge = GuardJudge("llama-guard-3", "its-folder", speaker)
    with pytest.raises(LayeralignError, match=r"its chat template writes 0 texts where 2 are given") as error:
        judge.judge_all([(TEXT, "Sure, like this.")])
    assert "\n" not in str(error.value)


def test_a_reward_whose_template_loses_the_answer_is_refused(tmp_path):
    """It gave every answer the same score."""
    folder = tiny.classifier("llama", tmp_path, labels=("good",), problem="regression")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'][0]['text'] }} {% endfor %}"
    )
    with pytest.raises(LayeralignError, match=r"reward .*: its chat template writes 0 texts where 2 are"):
        load_reward(str(folder))


@pytest.mark.slow
def test_a_training_goes_on_with_its_day(tmp_path, monkeypatch):
    vlm = dated(tmp_path)
    cases = [Case(f"{kind}{n}", f"how {n}?", kind) for kind in ("harmful", "benign") for n in range(4)]
    few = {"exits": "2", "rows": 8, "epochs": 1, "max_new_tokens": 3, "rank": 2}
    train(vlm, cases, _Reward(), tmp_path / "out", AlignSettings(steps=2, date="2001-02-03", **few))
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["settings"]["date"] == "2001-02-03"
    again = train(load(tmp_path / "model"), cases, _Reward(), tmp_path / "out", AlignSettings(steps=2, **few))
    assert len(again) == 2


def test_a_template_tells_the_day_in_english_at_midnight():
    class Names:
        chat_template = "{{ strftime_now('%A %d %B %Y, %a %b %H:%M %p') }}"

        def apply_chat_template(self, turns, **options):
            from transformers.utils.chat_template_utils import render_jinja_template

            return render_jinja_template([turns], chat_template=self.chat_template)[0][0]

    made = template.render(Names(), "x", [], "2024-02-29")
    assert made == "Thursday 29 February 2024, Thu Feb 00:00 AM"
    from transformers.utils.chat_template_utils import _compile_jinja_template

    left = _compile_jinja_template(Names.chat_template).globals
    assert "strftime_now" not in left.maps[0], "nothing is left behind"


def test_a_judge_is_told_one_day_for_ever(tmp_path):
    folder = tiny.guard("llama-guard-3", tmp_path)
    speaker = LocalSpeaker.load(str(folder), dtype="float32")
    speaker._names.chat_template = (
        "{{ bos_token }}{{ strftime_now('%Y-%m-%d') }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    )
    talk = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "No."}]
    assert template.JUDGE_DATE in speaker._names.decode(speaker.prompt(talk))


SCAN = """
import locale, socket, sys
def closed(*_, **__): raise SystemExit("a socket was opened")
socket.socket.connect = socket.getaddrinfo = closed
try:
    locale.setlocale(locale.LC_ALL, "")
except locale.Error:
    pass
import torch
torch.set_num_threads(2)
import layeralign
layeralign.scan(layeralign.load(sys.argv[1]), sys.argv[2], sys.argv[3], max_new_tokens=6, date=sys.argv[4])
"""


@pytest.mark.slow
def test_nothing_around_a_scan_changes_its_answers(tmp_path, case_file):
    """Another clock, time zone, locale, thread count, hash seed and folder, no network: the same answers."""
    model, day, there = tiny.save("mllama", tmp_path / "model"), "2024-05-06", tmp_path / "there"
    layeralign.scan(load(model), case_file, tmp_path / "here" / "run", max_new_tokens=6, date=day)
    there.mkdir()
    around = {"TZ": "Pacific/Kiritimati", "LC_ALL": "C.UTF-8", "LANG": "de_DE.UTF-8", "PYTHONHASHSEED": "77"}
    done = subprocess.run(
        [sys.executable, "-c", SCAN, str(model), str(case_file), str(there / "run"), day],
        cwd=there, env=os.environ | around, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = []
    for folder in (tmp_path / "here", there):
        with opening.open_run(folder / "run") as run:
            said.append(([(r["case"], r["exit"], r["answer"]) for r in run.rows()], run.identity))
    assert said[0] == said[1] and said[0][0]
