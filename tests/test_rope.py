"""Rotary embeddings that look at the longest row: rows are kept apart, over every type that transformers has."""

import copy

import pytest
import torch
import transformers as t
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import layeralign
import tiny
from layeralign import LayeralignError
from layeralign._util.quiet import quiet
from layeralign.cases.case import Case
from layeralign.decode import checks, prompts
from layeralign.decode.decoding import Decoding
from layeralign.decode.openings import opens
from layeralign.decode.stream import respond
from layeralign.testing import _Reward, _Shown, noise
from layeralign.training.settings import AlignSettings
from layeralign.training.train import train
from layeralign.vlm import rope
from layeralign.vlm.load import load

LENGTH = 48
"""Positions that the tiny models were made for."""
TYPES = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 8.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": LENGTH},
    "longrope": {
        "factor": 4.0, "original_max_position_embeddings": LENGTH,
        "short_factor": [1.0] * 10, "long_factor": [3.0 + n for n in range(10)],
    },
    "llama3": {
        "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": LENGTH,
    },
    "proportional": {"factor": 2.0, "partial_rotary_factor": 0.5},
}  # fmt: skip


def saved(kind, folder):
    """A tiny LLaVA whose language model has these rotary embeddings."""
    processor, cls, config = tiny.llava()
    text = config.text_config
    text.max_position_embeddings = LENGTH if kind in ("dynamic", "default") else 8 * LENGTH
    text.rope_parameters = {"rope_type": kind, "rope_theta": 100.0, **TYPES[kind]}
    torch.manual_seed(0)
    with quiet():
        made = cls(config)
        for weight in made.model.multi_modal_projector.parameters():
            torch.nn.init.normal_(weight, 0, 0.5)
        made.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


def test_every_type_of_transformers_is_here():
    assert set(TYPES) == {"default", *ROPE_INIT_FUNCTIONS}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.slow
def test_a_row_says_what_it_says_alone(kind, tmp_path, monkeypatch):
    """Rows below, across and above the length that the embeddings change at, streamed and not.

    Alone means on a model that has answered nothing else: `dynamic` remembers the longest row.
    """
    untouched = load(saved(kind, tmp_path))
    texts = ["Hi.", "w" * (LENGTH - 12), "What?", "x" * (LENGTH + 9), "y" * (LENGTH + 11), "z" * (2 * LENGTH)]
    ids = [untouched.tokens(untouched.prompt(text, picture=False), None) for text in texts]
    alone = []
    for line in ids:
        said = copy.deepcopy(untouched).generate([line], [None], max_new_tokens=10, do_sample=False)
        alone.append(prompts.ended(untouched, said[0].tolist())[0])
    for streams in (True, False):
        monkeypatch.setattr(type(untouched), "streams", streams)
        vlm = copy.deepcopy(untouched)
        made = respond(vlm, ids, [None] * len(ids), Decoding(10))
        again = respond(vlm, ids[::-1], [None] * len(ids), Decoding(10))[::-1]
        assert [one.tokens for one in made] == [one.tokens for one in again] == alone


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_what_rows_share_is_read_apart_where_it_would_be_read_at_another_length(kind, tmp_path):
    """Prompts of one picture share its tokens; below the length together, above it each alone."""
    from layeralign.testing import noise

    untouched = load(saved(kind, tmp_path))
    vlm = copy.deepcopy(untouched)
    feature = vlm.encode([noise(32, 32)], [2])[2][0]
    texts = ["Hi.", "Go!", "v" * LENGTH, "w" * LENGTH]
    ids = [vlm.tokens(vlm.prompt(text, picture=True), feature) for text in texts]
    made = respond(vlm, ids, [feature] * 4, Decoding(6))
    for line, said in zip(ids, made, strict=True):
        alone = (
            copy.deepcopy(untouched)
            .generate([line], [feature], max_new_tokens=6, do_sample=False)[0]
            .tolist()
        )
        assert said.tokens == prompts.ended(vlm, alone)[0]


def test_regimes_are_decided_from_the_config():
    found = rope.find(
        t.LlamaConfig(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
    )
    assert (found.type, found.length) == ("dynamic", 2048)
    assert [found.regime(n, 48) for n in (2000, 2001, 3000)] == ["short", "alone", "alone"]
    long = rope.Rope("longrope", 100)
    assert [long.regime(n, 10) for n in (90, 91, 100, 101)] == ["short", "alone", "alone", "long"]
    for config in (t.LlamaConfig(), t.Gemma3TextConfig(), t.Qwen2Config(), t.GPT2Config()):
        assert rope.find(config) is None
    layers = {
        "full_attention": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    config = t.Gemma3TextConfig(rope_parameters=layers, max_position_embeddings=64)
    assert (rope.find(config).type, rope.find(config).length) == ("dynamic", 64)


@pytest.mark.slow
def test_screen_and_training_refuse_what_they_read_in_batches(tmp_path):
    vlm = load(saved("dynamic", tmp_path / "model"))
    cases = [Case(f"{kind}{n}", "x" * 60, kind) for kind in ("harmful", "benign") for n in range(4)]
    few = AlignSettings(exits="2", steps=1, rows=8, epochs=1, max_new_tokens=3, rank=2)
    with pytest.raises(
        LayeralignError, match="depend on the longest row of a batch, so the case cannot be trained on"
    ):
        train(vlm, cases, _Reward(), tmp_path / "out", few)
    with pytest.raises(LayeralignError, match=r"the rotary embeddings of model .* depend on the longest row"):
        opens(load(tmp_path / "model"), [(cases[0], 1)], [(5,)])
    short = [Case(f"{kind}{n}", "x", kind) for kind in ("harmful", "benign") for n in range(4)]
    train(load(tmp_path / "model"), short, _Reward(), tmp_path / "fine", few)


# --- the context


@pytest.mark.slow
def test_past_the_context_nothing_is_answered(tmp_path):
    """902 tokens at 512 positions gave gibberish, 20 of 20 unsafe."""
    vlm = load(saved("default", tmp_path / "model"))
    assert vlm.context == LENGTH
    cases = [
        Case("short", "Hi.", "harmful"),
        Case("long", "x" * 30, "harmful"),
        Case("longer", "x" * 40, "harmful"),
    ]
    frame = len(vlm.tokens(vlm.prompt("", picture=False), None))
    with pytest.raises(LayeralignError) as error:
        layeralign.scan(vlm, cases, tmp_path / "run", exits=[1], max_new_tokens=8)
    assert str(error.value).startswith(
        f"case 'longer': its prompt of {frame + 40} tokens and an answer of 8 exceed the "
        f"{LENGTH} positions of model {tmp_path / 'model'}"
    )
    assert not (tmp_path / "run").exists()
    layeralign.scan(vlm, cases[:1], tmp_path / "run", exits=[1], max_new_tokens=8)


@pytest.mark.slow
def test_a_pictures_tokens_count(tmp_path):

    vlm = load(saved("default", tmp_path / "model"))
    case = Case("c", "x" * 10, "harmful", _Shown(noise(32, 32)))  # 16 tokens of the picture
    with pytest.raises(LayeralignError, match=r"case 'c': its prompt of \d+ tokens"):
        checks.check(vlm, [case], Decoding(8))
    checks.check(vlm, [Case("c", "x" * 10, "harmful")], Decoding(8))


@pytest.mark.slow
def test_dynamic_embeddings_reach_as_far_as_their_factor(tmp_path):
    assert load(saved("dynamic", tmp_path)).context == 8 * LENGTH


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava_next", "internvl"])
def test_the_longest_case_is_found_among_pictures_that_do_not_say_their_size(name, tmp_path):
    """Those of Python callers: all were taken to be as large as the first."""
    vlm = load(tiny.save(name, tmp_path))
    cases = [Case(id, "Hi?", "harmful", _Shown(noise(n, n))) for id, n in (("small", 16), ("large", 60))]
    features = prompts.encode(vlm, [(case, 1) for case in cases])
    small, large = (
        len(prompts.prompt_tokens(vlm, case, feature)) for case, feature in zip(cases, features, strict=True)
    )
    assert small < large
    vlm.context = large + 3
    with pytest.raises(LayeralignError, match=f"case 'large': its prompt of {large} tokens"):
        checks.check(vlm, cases, Decoding(4))
    assert checks.check(vlm, cases, Decoding(3)) == []
