"""Where an answer ends, and what stands around a prompt: ends, BOS, EOS, control tokens."""

import pytest
from tokenizers import processors

import layeralign
import tiny
from layeralign import LayeralignError
from layeralign.cases.case import Case
from layeralign.decode import checks, prompts
from layeralign.decode.decoding import Decoding
from layeralign.decode.prompts import prompt_tokens
from layeralign.judges.models.local import LocalSpeaker
from layeralign.testing import _Shown, noise
from layeralign.vlm.load import load


def changed(tmp_path, name="llava", **config):
    """A tiny model, saved with another generation_config."""
    import json

    folder = tiny.save(name, tmp_path / "model")
    file = folder / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return load(folder)


def token(vlm, text):
    return vlm.tokenizer.convert_tokens_to_ids(text)


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_every_family_ends_where_its_tokenizer_and_template_say(name, tmp_path):
    vlm = load(tiny.save(name, tmp_path))
    assert vlm.tokenizer.eos_token_id in vlm.eos_tokens
    named = {"llava_onevision": "<|im_end|>", "gemma3": "<end_of_turn>", "qwen3_vl": "<|im_end|>"}
    if name in named:
        assert "template" in vlm.ends[token(vlm, named[name])]


@pytest.mark.slow
def test_an_end_that_generation_config_does_not_name_ends_an_answer(tmp_path):
    """It went on with the user's next turn, and that was judged."""
    vlm = changed(tmp_path, "qwen3_vl", eos_token_id=0)
    end = token(vlm, "<|im_end|>")
    assert set(vlm.ends[end]) >= {"tokenizer", "template"} and vlm.ends[0] == ("generation_config",)
    assert prompts.ended(vlm, [5, end, 6]) == ([5, end], True)
    (note,) = checks.check(vlm, [Case("c", "Hi.", "benign")], Decoding(4))
    assert note.startswith("generation_config.json ends answers only at <pad>, but <|im_end|> (")


@pytest.mark.slow
def test_a_default_of_a_config_is_no_end_if_it_is_an_ordinary_token(tmp_path):
    """LlamaConfig has eos_token_id 2 by default, which is a letter in this tokenizer."""
    vlm = load(tiny.save("qwen2_5_vl", tmp_path))
    letter = token(vlm, "a")
    vlm.model.config.get_text_config().eos_token_id = letter
    del vlm.__dict__["ends"]
    assert letter not in vlm.eos_tokens


@pytest.mark.slow
def test_a_checkpoint_that_names_no_end_is_noted(tmp_path):
    """Every answer goes on to the longest length, and what is behind its end is judged."""
    import json

    folder = tiny.save("llava", tmp_path)
    for file in ("config.json", "generation_config.json", "tokenizer_config.json"):
        made = json.loads((folder / file).read_text())
        for part in (made, made.get("text_config", {})):
            part |= {name: None for name in ("eos_token_id", "eos_token") if name in part}
        (folder / file).write_text(json.dumps(made))
    vlm = load(folder)
    assert vlm.ends == {}
    (note,) = checks.check(vlm, [Case("c", "Hi.", "benign")], Decoding(4))
    assert note.startswith("nothing names a token that ends an answer")


@pytest.mark.slow
def test_where_all_agree_nothing_is_noted(tmp_path):
    vlm = load(tiny.save("llava", tmp_path))
    assert checks.check(vlm, [Case("c", "Hi.", "benign")], Decoding(4)) == []


# --- BOS and EOS


def with_tokenizer(tmp_path, name, template=None, single=None):
    vlm = load(tiny.save(name, tmp_path / "model"))
    if template is not None:
        vlm.processor.chat_template = template(vlm.processor.chat_template)
    if single is not None:
        names = vlm.tokenizer
        ends = [(mark, names.convert_tokens_to_ids(mark)) for mark in (names.bos_token, names.eos_token)]
        names.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=ends
        )
    return vlm


@pytest.mark.slow
@pytest.mark.parametrize(
    ("single", "template"),
    [
        ("<s> $A", None),
        ("<s> $A </s>", None),  # the tokenizer adds an EOS
        ("<s> $A", lambda t: "{{ bos_token }}" + t),
        ("<s> $A", lambda t: "\n{{ bos_token }}" + t),  # a line break before the template's BOS
        ("<s> $A </s>", lambda t: " \n{{ bos_token }}" + t),
    ],
)
def test_exactly_one_bos_and_no_eos(tmp_path, single, template):
    vlm = with_tokenizer(tmp_path, "llava", template, single)
    (feature,) = vlm.encode([noise(32, 32)], [1])[1]
    for picture in (None, feature):
        ids = prompt_tokens(vlm, Case("c", "Hi.", "benign"), picture)
        assert ids.count(vlm.tokenizer.bos_token_id) == 1
        assert vlm.tokenizer.eos_token_id not in ids


@pytest.mark.slow
def test_a_users_bos_does_not_take_the_models_place(tmp_path):
    """The text was searched for it, so that a prompt with <s> in it began without one."""
    vlm = with_tokenizer(tmp_path, "llava")
    bos = vlm.tokenizer.bos_token_id
    for mode, count in (("literal", 1), ("parse", 2)):
        ids = prompt_tokens(vlm, Case("c", "What is <s>?", "benign"), None, Decoding(special_tokens=mode))
        assert ids[0] == bos and ids.count(bos) == count


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_an_eos_of_the_tokenizer_never_ends_a_prompt(name, tmp_path):
    vlm = load(tiny.save(name, tmp_path / "model"))
    wanted = prompt_tokens(vlm, Case("c", "Hi.", "benign"), None)
    names = vlm.tokenizer
    names.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A " + names.eos_token, special_tokens=[(names.eos_token, names.eos_token_id)]
    )
    ids = prompt_tokens(vlm, Case("c", "Hi.", "benign"), None)
    assert ids[-1] != names.eos_token_id
    assert wanted in (ids, [names.bos_token_id, *ids])


@pytest.mark.parametrize("kind", ["llama-guard-3", "llama-guard-3-1b", "llama-guard-4"])
def test_a_judges_prompt_has_one_bos_whatever_the_answer_holds(kind, tmp_path):
    speaker = LocalSpeaker.load(str(tiny.guard(kind, tmp_path)), dtype="float32")
    parts = kind != "llama-guard-3"

    def turn(role, text):
        return {"role": role, "content": [{"type": "text", "text": text}] if parts else text}

    plain = speaker.prompt([turn("user", "Hi."), turn("assistant", "No.")])
    bos = speaker._names.bos_token_id
    assert plain.count(bos) == 1


# --- control tokens in a text


@pytest.mark.parametrize("name", tiny.FAMILIES)
@pytest.mark.slow
def test_control_tokens_in_a_text_are_text(name, tmp_path):
    vlm = load(tiny.save(name, tmp_path))
    end = vlm.tokenizer.eos_token
    text = f"What does {end} mean?"
    case = Case("c", text, "benign")
    ids = prompt_tokens(vlm, case, None)
    plain = prompt_tokens(vlm, Case("c", "What does it mean?", "benign"), None)
    eos = vlm.tokenizer.eos_token_id
    assert ids.count(eos) == plain.count(eos)
    assert text in vlm.tokenizer.decode(ids, skip_special_tokens=False)
    parsed = prompt_tokens(vlm, case, None, Decoding(special_tokens="parse"))
    assert parsed.count(eos) == plain.count(eos) + 1


@pytest.mark.slow
def test_a_text_without_them_is_read_as_ever(tmp_path):
    """As the model's own processor reads it, with and without the private signs that mark control tokens."""
    vlm = load(tiny.save("qwen3_vl", tmp_path))
    prompt = vlm.prompt("Hi \U000f0000there\U000f0001.", picture=False)
    assert vlm.literal("Hi.") == "Hi."
    assert prompt_tokens(vlm, Case("c", "Hi there.", "benign"), None) == vlm.tokens(
        vlm.prompt("Hi there.", picture=False), None
    )
    assert vlm.tokens(prompt, None)  # and cannot forge a mark


@pytest.mark.slow
def test_they_are_counted_and_said(tmp_path, capsys):
    vlm = load(tiny.save("llava", tmp_path / "model"))
    cases = [Case("a", "Hi </s>", "benign"), Case("b", "Hi.", "benign"), Case("c", "<s>", "benign")]
    run = layeralign.scan(vlm, cases, tmp_path / "run", exits=[1], max_new_tokens=1)
    told = capsys.readouterr().err
    assert (
        "note: 2 cases have ('a', ...) this model's special tokens in the text; they are read as text" in told
    )
    assert run.identity["decoding"]["special_tokens"] == "literal"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tag", "whose"),
    [
        ("llava", "<image>", "this model reads as a picture"),
        ("llava", "<|image_pad|>", "another model's picture tag"),
        ("qwen3_vl", "<image>", "another model's picture tag"),
        ("qwen3_vl", "<|image_pad|>", "this model reads as a picture"),
        ("mllama", "<image>", "another model's picture tag"),
        ("gemma3", "<image>", "another model's picture tag"),
    ],
)
def test_a_pictures_tag_in_a_text_is_refused(name, tag, whose, tmp_path):
    vlm = load(tiny.save(name, tmp_path))
    for case, decoding in (
        (Case("c", f"{tag}\nWhat is it?", "benign", _Shown(noise(32, 32))), Decoding(4)),
        (Case("c", "What is it?", "benign"), Decoding(4, system=f"See {tag}.")),
    ):
        with pytest.raises(LayeralignError, match=whose):
            checks.check(vlm, [case], decoding)
