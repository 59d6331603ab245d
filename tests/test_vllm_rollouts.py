"""Trainings whose rollouts a vLLM server samples: on a loopback server that keeps vLLM's contract.

`benchmarks/runtimes/vllm_rollouts.py` trains with a real one.
"""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import layeralign
import vllm_loopback
from layeralign import LayeralignError
from layeralign.cli import main
from layeralign.decode.decoding import Decoding
from layeralign.sweep.vllm import server
from layeralign.sweep.vllm.rollouts import VllmRollouts
from layeralign.sweep.vllm.server import Server
from layeralign.testbed import cases as testbed
from layeralign.training.data.features import Features
from layeralign.training.policy import Policy
from layeralign.training.rollouts import Rollouts
from layeralign.training.settings import AlignSettings
from layeralign.vlm.load import load
from test_align import Vowels
from test_vllm import changed

pytestmark = pytest.mark.slow
SMALL = AlignSettings(steps=3, rows=8, epochs=2, lr=1e-2, max_new_tokens=6, rank=2, group=2)


@pytest.fixture(scope="module")
def vlm():
    return load("testbed")


@pytest.fixture(scope="module")
def cases():
    return testbed.cases("train", 16, 0)


def align(out, cases, url=None, **changes):
    engine = {"engine": "vllm", "endpoint": url} if url else {}
    settings = replace(SMALL, **changes)
    reward = Vowels() if settings.rolls_out else None
    return layeralign.align("testbed", cases, out, reward=reward, settings=settings, **engine)


def weights(out):
    return load_file(out / "adapter_model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def ours(cases, tmp_path_factory):
    out = tmp_path_factory.mktemp("ours") / "adapter"
    align(out, cases)
    return weights(out)


def test_greedy_rollouts_are_those_of_our_engine_at_two_exits(vlm, cases, tmp_path):
    policy = Policy(load("testbed"), 2, 0)
    features = Features(policy.vlm, cases, [0, 7])
    rows = [(case, exit) for exit in (0, 7) for case in cases]
    seen, decoding, seeds = [features.of(row) for row in rows], Decoding(8), range(len(rows))
    plain = Rollouts().sample(policy, rows, seen, decoding, seeds)
    with vllm_loopback.serving(vlm) as there:
        rollouts = VllmRollouts(Server(there.url))
        rollouts.begin(policy, cases, decoding, tmp_path)
        with policy.drawn():
            mine = Rollouts().sample(policy, rows, seen, decoding, seeds)
            theirs = rollouts.sample(policy, rows, seen, decoding, seeds)
    assert [(one.tokens, one.finish_reason) for one in theirs] == [
        (one.tokens, one.finish_reason) for one in mine
    ]
    assert [one.tokens for one in mine] != [one.tokens for one in plain]


def test_the_handshake_leaves_the_adapter_as_it_was(vlm, cases, tmp_path):
    policy = Policy(load("testbed"), 2, 0)
    before = {name: one.detach().clone() for name, one in policy.trainable().items()}
    state = torch.random.get_rng_state()
    with vllm_loopback.serving(vlm) as there:
        VllmRollouts(Server(there.url)).begin(policy, cases, Decoding(8), tmp_path)
    assert same(before, {name: one.detach() for name, one in policy.trainable().items()})
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_training_ends_in_the_bits_of_a_local_one(vlm, cases, ours, tmp_path):
    with vllm_loopback.serving(vlm) as there:
        history = align(tmp_path / "a", cases, there.url)
    assert len(history) == 3 and same(weights(tmp_path / "a"), ours)
    assert len(set(there.loads)) == 5  # two of the handshake and one of each step
    assert not there.adapters and not (tmp_path / "a" / "rollouts").exists()
    asked = [body for body in there.bodies if "allowed_token_ids" in body]
    assert len(asked) == 12 and len({body["seed"] for body in asked}) == 12
    for body in asked:
        assert (body["temperature"], body["top_k"], body["repetition_penalty"]) == (1.0, 0, 1.0)
        assert set(body["allowed_token_ids"]).isdisjoint(vlm.unsayable)
    record = json.loads((tmp_path / "a" / "training.json").read_text())
    assert record["engine"] == {"name": "vllm", "version": "0.32.0", "model": "m"}


@pytest.mark.slow
def test_methods_without_a_critic_end_in_the_bits_of_local_ones(vlm, cases, tmp_path):
    for method in ("rloo", "grpo"):
        align(tmp_path / f"{method}-ours", cases, method=method)
        with vllm_loopback.serving(vlm) as there:
            align(tmp_path / method, cases, there.url, method=method)
        assert same(weights(tmp_path / method), weights(tmp_path / f"{method}-ours"))


def test_a_dead_server_is_one_sentence_and_the_resumed_training_ends_the_same(
    vlm, cases, ours, tmp_path, monkeypatch
):
    monkeypatch.setattr(server, "_BUDGET_S", 0.5)
    with vllm_loopback.serving(vlm) as there:
        there.dies_after = 25  # in the second step
        with pytest.raises(LayeralignError, match=r"a rollout failed .*the same command resumes"):
            align(tmp_path / "a", cases, there.url)
        assert len(there.loads) == 4
    with pytest.raises(LayeralignError, match="cannot be reached"):
        align(tmp_path / "a", cases, there.url)
    with vllm_loopback.serving(vlm) as there:
        align(tmp_path / "a", cases, there.url)
    assert same(weights(tmp_path / "a"), ours)
    assert not (tmp_path / "a" / "rollouts").exists()


def test_a_training_is_not_continued_by_another_engine(vlm, cases, tmp_path):
    with vllm_loopback.serving(vlm) as there:
        align(tmp_path / "a", cases, there.url, steps=1)
        with pytest.raises(LayeralignError, match="holds another training, with engine"):
            align(tmp_path / "a", cases, steps=1)
        align(tmp_path / "b", cases, steps=1)
        with pytest.raises(LayeralignError, match="holds another training, with engine"):
            align(tmp_path / "b", cases, there.url, steps=1)


def test_a_server_that_changes_meanwhile_is_seen(vlm, cases, tmp_path):
    with vllm_loopback.serving(vlm) as there:
        there.becomes = (25, changed(vlm))
        with pytest.raises(LayeralignError, match="answers are not those of model"):
            align(tmp_path / "a", cases, there.url)


# --- what is refused before the first step


@pytest.mark.parametrize(
    ("server", "says"),
    [
        ({"lora": False}, "answered 404.*VLLM_ALLOW_RUNTIME_LORA_UPDATING=True.*--max-lora-rank 2"),
        ({"ignores": True}, "has another language model, adapter"),
        ({"features": False}, "--enable-mm-embeds"),
        ({"longest": 20}, "exceed the 20 positions|larger --max-model-len"),
    ],
)
def test_a_server_that_cannot_is_one_sentence(vlm, cases, tmp_path, server, says):
    with vllm_loopback.serving(vlm) as there:
        vars(there).update(server)
        with pytest.raises(LayeralignError, match=says):
            align(tmp_path / "a", cases, there.url)
    assert not (tmp_path / "a" / "adapter_model.safetensors").exists()


def test_an_adapter_that_is_not_loaded_is_one_sentence(vlm, cases, tmp_path):
    with vllm_loopback.serving(vlm) as there:
        there.adapter = lambda path, body: 500
        with pytest.raises(LayeralignError, match=r"did not load the adapter \(the server answered 500"):
            align(tmp_path / "a", cases, there.url)


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (lambda vlm: [vlm.unsayable[0]] * 6, "had a token that was not allowed"),
        (lambda vlm: [5], "neither an end token nor the largest length"),
        (lambda vlm: [10**6] * 6, "unknown ones"),
    ],
)
def test_tokens_that_no_rollout_may_have_end_the_training(vlm, cases, tmp_path, tokens, says):
    with vllm_loopback.serving(vlm) as there:
        real = there.answer

        def answer(body):
            found = real(body)
            return found | ({"choices": [{"token_ids": tokens(vlm)}]} if "allowed_token_ids" in body else {})

        there.answer = answer
        with pytest.raises(LayeralignError, match=says):
            align(tmp_path / "a", cases, there.url)


def test_a_method_without_rollouts_needs_no_server(vlm, cases, tmp_path):
    with (
        vllm_loopback.serving(vlm) as there,
        pytest.raises(LayeralignError, match="engine: method sft makes no rollouts; remove --engine"),
    ):
        align(tmp_path / "a", cases, there.url, method="sft")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("--engine vllm", "belong together"),
        ("--engine vllm --endpoint http://127.0.0.1:9/v1", "cannot be reached"),
    ],
)
def test_wrong_flags_are_one_sentence(capsys, tmp_path, given, says):
    code = main(
        [
            "align",
            "--model",
            "testbed",
            "--cases",
            "testbed:train",
            "--limit",
            "2",
            "--reward",
            "testbed",
            "--out",
            str(tmp_path / "a"),
            *given.split(),
        ]
    )
    assert code == 1 and says in capsys.readouterr().err and not (tmp_path / "a").exists()
