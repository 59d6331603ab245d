"""Training on real, tiny models: what moves and what does not, resuming, stopping."""

import hashlib
import json
import math
import os
import random
import resource
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForImageTextToText

import children
import layeralign
from layeralign import LayeralignError
from layeralign.cases.case import Case
from layeralign.cli import main
from layeralign.decode import prompts as decode_prompts
from layeralign.decode.decoding import Decoding
from layeralign.exits import Exits
from layeralign.runs.opening import open_run
from layeralign.testbed import cases as testbed
from layeralign.training import algorithm, policy, ppo, train
from layeralign.training import reference as reference_answers
from layeralign.training.data.batches import Batches
from layeralign.training.data.exit_mix import FLOOR, ExitMix
from layeralign.training.data.features import Features
from layeralign.training.data.rollout import collate, prompts
from layeralign.training.lppo import Lppo
from layeralign.training.parallel import Workers
from layeralign.training.policy import Policy
from layeralign.training.reference import STOCK_REFUSAL, ReferenceAnswers, right_answer
from layeralign.training.settings import AlignSettings
from layeralign.training.state import checkpoint, health, log, record
from layeralign.vlm.identity import identity
from layeralign.vlm.load import load

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import data_parallel

SMALL = AlignSettings(steps=4, rows=12, epochs=2, lr=1e-2, max_new_tokens=6, rank=2, mix="worst")


class Vowels:
    """A reward that needs no model: the share of vowels."""

    name = "vowels"

    def record(self):
        return {"name": self.name}

    def score(self, cases, answers):
        return torch.tensor([sum(letter in "aeiou" for letter in a) / (len(a) + 1) for a in answers])


def vowels(cases, answers):
    """The same as an entry point, for the command line."""
    return Vowels().score(cases, answers).tolist()


@pytest.fixture(scope="module")
def cases():
    return testbed.cases("train", 24, 0)


def sha(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def run(llava_dir, cases, out, **changes):
    vlm = load(llava_dir)
    history = train.train(vlm, cases, Vowels(), out, replace(SMALL, **changes))
    return vlm, history


def rollout_batch(vlm, cases, exits, answers):
    features = Features(vlm, cases, exits)
    rows = list(zip(cases, exits, strict=True))
    seen = [features.of(row) for row in rows]
    return collate(vlm, prompts(vlm, rows, seen, Decoding()), answers, seen)


# --- the policy


@pytest.mark.slow
def test_only_the_language_model_is_adapted_and_the_rest_stays_bit_for_bit(llava_dir, cases, tmp_path):
    before = {name: p.clone() for name, p in load(llava_dir).model.named_parameters()}
    vlm, _ = run(llava_dir, cases, tmp_path / "a")
    with safe_open(tmp_path / "a" / "adapter_model.safetensors", "pt") as opened:
        names = list(opened.keys())
        assert any(opened.get_tensor(name).abs().max() > 0 for name in names if "lora_B" in name)
    assert names and all(".language_model." in name for name in names)
    after = {
        name.replace("base_layer.", ""): p for name, p in vlm.model.named_parameters() if "lora" not in name
    }
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_an_adapter_is_readable_as_the_umask_says(llava_dir, cases, tmp_path):
    before = os.umask(0o022)
    try:
        run(llava_dir, cases[:2], tmp_path / "a", steps=1)
    finally:
        os.umask(before)
    for name in ("adapter_model.safetensors", "adapter_config.json", "README.md"):
        assert (tmp_path / "a" / name).stat().st_mode & 0o777 == 0o644, name


@pytest.mark.slow
def test_the_adapters_page_says_what_it_is(llava_dir, cases, tmp_path):
    run(llava_dir, cases[:2], tmp_path / "a", steps=1)
    page = (tmp_path / "a" / "README.md").read_text()
    assert f"base_model: {llava_dir}" in page and "More Information Needed" not in page


@pytest.mark.slow
def test_a_scan_tells_which_of_its_cases_were_trained_on(llava_dir, cases, tmp_path):
    run(llava_dir, cases[:2], tmp_path / "a")
    (other,) = [replace(cases[0], id="other", prompt="is it another one?")]
    (same,) = [replace(cases[1], id="same")]
    tuned = load(llava_dir, adapter=tmp_path / "a")
    found = layeralign.scan(tuned, [other, same], tmp_path / "run", exits=1, max_new_tokens=2)
    assert found.summary.trained_on == 1
    with open_run(tmp_path / "run") as opened:
        assert opened.trained_on == {"same"}
    layeralign.scan(load(llava_dir), [other, same], tmp_path / "plain", exits=1, max_new_tokens=2)
    assert layeralign.read(tmp_path / "plain").summary.trained_on == 0


@pytest.mark.slow
def test_any_tool_can_load_the_adapter(llava_dir, cases, tmp_path):
    vlm, _ = run(llava_dir, cases, tmp_path / "a")
    plain = AutoModelForImageTextToText.from_pretrained(llava_dir)
    theirs = PeftModel.from_pretrained(plain, tmp_path / "a")
    ids = torch.tensor([[2, 30, 40, 50]])
    with torch.no_grad():
        wanted, found = theirs(input_ids=ids).logits, vlm.model(input_ids=ids).logits
        torch.testing.assert_close(found, wanted)
        ours = load(llava_dir, adapter=tmp_path / "a")
        torch.testing.assert_close(ours.model(input_ids=ids).logits, wanted, rtol=1e-4, atol=1e-5)
        start = load(llava_dir).model(input_ids=ids).logits
    assert (wanted - start).abs().max() > 1e-3


@pytest.mark.slow
def test_the_reference_is_the_model_without_adapter_and_merging_leaves_no_trace(llava_dir, cases):
    vlm = load(llava_dir)
    policy = Policy(vlm, 2, 0)
    batch = rollout_batch(vlm, cases[:3], [1, 3, 5], [[9, 8, 3], [7, 3], [6, 5, 4]])
    with torch.no_grad():
        start = policy(batch).logits
        for name, p in policy.trainable().items():
            if "lora_B" in name:
                p.normal_()
        moved = policy(batch).logits
        assert (moved - start).abs().max() > 1e-2
        with policy.reference():
            assert torch.equal(policy(batch).logits, start)
        with policy.merged():
            torch.testing.assert_close(policy(batch).logits, moved, rtol=1e-3, atol=1e-3)
        assert torch.equal(policy(batch).logits, moved)


@pytest.mark.slow
def test_the_training_forward_agrees_with_generation(llava, cases):
    """Greedy answers are the most likely tokens of the training forward, row by row, exit by exit."""
    policy = Policy(llava_copy(llava), 2, 0)
    vlm, rows = policy.vlm, list(zip(cases[:6], [0, 1, 2, 3, 4, 5], strict=True))
    features = Features(vlm, cases, range(6))
    seen = [features.of(row) for row in rows]
    made = vlm.generate(prompts(vlm, rows, seen, Decoding()), seen, max_new_tokens=5, do_sample=False,
                        suppress_tokens=vlm.unsayable).tolist()  # fmt: skip
    answers = [decode_prompts.ended(vlm, line)[0] for line in made]
    batch = collate(vlm, prompts(vlm, rows, seen, Decoding()), answers, seen)
    mask = ppo.answer_mask(batch.lengths, batch.answers.shape[1])
    with torch.no_grad():
        best = policy(batch).logits.argmax(-1)
    assert (best == batch.answers)[mask].all()
    assert len({tuple(answer) for answer in answers}) > 1  # exits and pictures tell


def llava_copy(llava):
    return load(llava.checkpoint.path)


def test_a_placeholder_in_an_answer_is_no_place_for_features(llava, cases):
    batches = [
        rollout_batch(llava, cases[:2], [2, 2], [[token, 9, 3], [8, 3]])
        for token in (llava.picture_token_id, llava.pad_token)
    ]
    with torch.no_grad():
        one, other = (llava.hidden(batch.ids, batch.prompt, batch.features) for batch in batches)
    assert torch.equal(one, other)
    assert llava.picture_token_id in llava.unsayable
    assert not set(llava.unsayable) & llava.eos_tokens


@pytest.mark.slow
def test_padding_does_not_shape_a_row(llava_dir, cases):
    policy = Policy(load(llava_dir), 2, 0)
    long, short = [9] * 12, [7, 8, 3]
    with torch.no_grad():
        both = policy(rollout_batch(policy.vlm, cases[:2], [1, 4], [long, short])).logits[1, :3]
        alone = policy(rollout_batch(policy.vlm, cases[1:2], [4], [short])).logits[0]
    torch.testing.assert_close(both, alone, rtol=1e-4, atol=1e-4)


def test_cached_features_are_those_of_a_scan(llava, cases):
    features = Features(llava, cases, [0, 3])
    wanted = decode_prompts.encode(llava, [(case, 3) for case in cases[:4]])
    for case, feature in zip(cases[:4], wanted, strict=True):
        torch.testing.assert_close(features.of((case, 3)).tokens, feature.tokens, rtol=1e-4, atol=1e-4)
        assert features.of((case, 3)) is features.of((case, 3))


def test_the_cache_drops_what_does_not_fit(llava, cases, monkeypatch):
    monkeypatch.setattr("layeralign.training.data.features.CACHE_BYTES", 1)
    features = Features(llava, cases, [0, 3])
    first = features.of((cases[0], 3))
    features.of((cases[1], 3))
    again = features.of((cases[0], 3))
    assert again is not first and torch.equal(again.tokens, first.tokens)


# --- the update


@pytest.mark.slow
def test_accumulated_microbatches_make_the_same_update(llava_dir, cases, tmp_path):
    _, whole = run(llava_dir, cases, tmp_path / "a", steps=2)
    _, parts = run(llava_dir, cases, tmp_path / "b", steps=2, accumulate=3)
    for name in ("policy_loss", "value_loss", "retention_kl", "grad_norm", "kl"):
        for one, other in zip(whole, parts, strict=True):
            assert one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-5), name


@pytest.mark.slow
def test_the_first_update_starts_at_ratio_one(llava_dir, cases, tmp_path):
    _, history = run(llava_dir, cases, tmp_path / "a", steps=1, epochs=1)
    assert history[0]["clip_fraction"] == 0 and history[0]["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert history[0]["kl"] == pytest.approx(0, abs=1e-4)  # the adapter starts as nothing


@pytest.mark.slow
def test_a_reward_is_learned(llava_dir, cases, tmp_path, monkeypatch):
    """Short answers are what is asked for, and what comes."""
    monkeypatch.setattr(
        Vowels, "score", lambda self, asked, answers: torch.tensor([-len(a) / 10 for a in answers])
    )
    _, history = run(
        llava_dir, cases, tmp_path / "a", steps=25, rows=32, retention_share=0, kl_coef=0.0, harm_weight=1.0
    )
    first, last = (sum(h["length"] for h in part) / 3 for part in (history[:3], history[-3:]))
    assert last < first - 1


@pytest.mark.parametrize("method", ["sft", "sft-default", "consistency", "paper"])
@pytest.mark.slow
def test_every_method_trains(llava_dir, cases, tmp_path, method):
    _, history = run(llava_dir, cases, tmp_path / "a", method=method, mix="uniform", steps=6, epochs=4)
    losses = [h.get("imitation_loss", h.get("policy_loss")) for h in history]
    assert all(math.isfinite(loss) for loss in losses)
    if method.startswith("sft"):
        assert losses[-1] < losses[0]
    exits = {exit for h in history for exit in h["exits"]}
    assert exits == ({"4"} if method == "sft-default" else {str(e) for e in range(6)})


@pytest.mark.slow
def test_target_kl_stops_the_passes(llava_dir, cases, tmp_path):
    _, history = run(llava_dir, cases, tmp_path / "a", epochs=8, target_kl=1e-6, steps=1)
    assert history[0]["updates"] == 1


@pytest.mark.slow
def test_gradient_checkpointing_changes_nothing(llava_dir, cases, tmp_path):
    _, plain = run(llava_dir, cases, tmp_path / "a", steps=2)
    _, again = run(llava_dir, cases, tmp_path / "b", steps=2, gradient_checkpointing=True)
    assert [h["policy_loss"] for h in plain] == pytest.approx([h["policy_loss"] for h in again], rel=1e-4)


@pytest.mark.slow
def test_frozen_weights_may_be_bfloat16(llava_dir, cases, tmp_path):
    vlm = load(llava_dir, dtype="bfloat16")
    history = train.train(vlm, cases, Vowels(), tmp_path / "a", SMALL)
    assert all(math.isfinite(h["policy_loss"]) for h in history)
    assert {p.dtype for p in vlm.model.parameters() if p.requires_grad} == {torch.float32}
    with safe_open(tmp_path / "a" / "adapter_model.safetensors", "pt") as opened:
        assert max(opened.get_tensor(name).abs().max() for name in opened.keys() if "lora_B" in name) > 0  # noqa: SIM118


# --- rows and exits


def test_rows_are_as_the_settings_say(cases):
    settings = replace(SMALL, rows=30, retention_share=0.2, harmful_share=0.75)
    batches = Batches(cases, settings, 4)
    mix = ExitMix.parse(Exits(5, 4), "1-3", "uniform")
    rows = batches.draw(3, mix)
    assert len(rows.retention) == 6 and {exit for _, exit in rows.retention} == {4}
    assert sum(case.kind == "harmful" for case, _ in rows.trained) == 18
    assert {exit for _, exit in rows.trained} == {1, 2, 3}
    assert rows == batches.draw(3, mix) != batches.draw(4, mix)


def test_a_pass_uses_every_case_once(cases):
    batches = Batches(cases, replace(SMALL, rows=3, retention_share=0.34, harmful_share=0.5), 4)
    mix = ExitMix.parse(Exits(5, 4), "all", "uniform")
    drawn = [batches.draw(step, mix).retention[0][0].id for step in range(2 * len(cases))]
    assert len(set(drawn[: len(cases)])) == len(cases) == len(set(drawn[len(cases) :]))
    assert drawn[: len(cases)] != drawn[len(cases) :]


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=9), st.integers(0, 200), st.integers(0, 99))
def test_exits_are_drawn_as_their_weights_say(weights, n, seed):
    mix = ExitMix(tuple(range(len(weights))), np.array(weights), adaptive=False)
    drawn = mix.draw(np.random.default_rng(seed), n)
    assert len(drawn) == n
    for exit, weight in zip(mix.exits, mix.weights, strict=True):
        assert math.floor(weight * n + 1e-9) - 1e-6 <= drawn.count(exit) + 1e-6


def test_worst_follows_the_harm_by_hand_and_draws_every_exit():
    mix = ExitMix((0, 1), np.ones(2), adaptive=True)
    mix.update({0: 1.0, 1: 0.0})
    odds = math.exp(4) / (math.exp(4) + 1)
    assert mix.weights.tolist() == pytest.approx([0.7 * odds + 0.15, 0.7 * (1 - odds) + 0.15])
    for _ in range(200):
        mix.update({0: 1.0, 1: 0.0})
    assert mix.weights[1] >= FLOOR / 2 and mix.weights[0] > 0.8
    for _ in range(200):
        mix.update({0: 0.0, 1: 1.0})
    assert mix.weights[1] > 0.8 and mix.weights.sum() == pytest.approx(1)


def test_uniform_stays_uniform_whatever_the_harm():
    mix = ExitMix((0, 1), np.ones(2), adaptive=False)
    mix.update({0: 1.0, 1: 0.0})
    assert mix.weights.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("exits", "mix", "message"),
    [
        ("1-3", "1:1,2:1", "a weight for each"),
        ("1-3", "1:1,2:1,3:1,4:1", "a weight for each"),
        ("1", "1:0", "not all of them 0"),
        ("1", "1:1,1:2", "twice"),
        ("1", "best", "cannot read"),
        ("9", "uniform", "out of range"),
        ("1", "9:1", "out of range"),
    ],
)
def test_bad_mixes_say_what_is_wrong(exits, mix, message):
    with pytest.raises(LayeralignError, match=message):
        ExitMix.parse(Exits(5, 4), exits, mix)


@pytest.mark.parametrize("bad", [{"retention_share": 1.0}, {"lr": -1.0}, {"steps": 0}, {"gamma": 1.5}, {"clip": 0.0},
                                 {"temperature": 0.0}, {"lr": math.nan}])  # fmt: skip
def test_bad_settings_say_what_is_wrong(bad):
    with pytest.raises(LayeralignError, match=next(iter(bad))):
        AlignSettings(**bad)


@pytest.mark.slow
def test_what_supervised_methods_teach(llava, cases, tmp_path):
    policy = Policy(llava_copy(llava), 2, 0)
    reference = ReferenceAnswers(policy, Features(policy.vlm, cases, [4]), Decoding(5))
    harmful, benign = Case("h", "how do i smash it?", "harmful"), Case("b", "describe it.", "benign")
    reference.make([harmful, benign], Workers(), tmp_path)
    say = lambda ids: decode_prompts.text(policy.vlm, ids)  # noqa: E731
    assert say(right_answer(policy, cases[0], reference)) == cases[0].reference
    assert right_answer(policy, benign, reference) == reference.tokens(benign)
    stock = policy.vlm.tokenizer(STOCK_REFUSAL, add_special_tokens=False)["input_ids"]
    assert right_answer(policy, harmful, reference) == [
        *(token for token in stock if token not in policy.vlm.unsayable),
        3,
    ]


# --- resuming and stopping


@pytest.mark.slow
def test_a_resumed_training_ends_in_the_same_bits(llava_dir, cases, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SAVE_EVERY", 2)
    run(llava_dir, cases, tmp_path / "whole", steps=5)
    step = Lppo.step

    def stopped(self, number):
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(Lppo, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(llava_dir, cases, tmp_path / "cut", steps=5)
    monkeypatch.setattr(Lppo, "step", step)
    _, history = run(llava_dir, cases, tmp_path / "cut", steps=5)
    assert sha(tmp_path / "whole" / checkpoint.FILE) == sha(tmp_path / "cut" / checkpoint.FILE)
    name = "adapter_model.safetensors"
    assert sha(tmp_path / "whole" / name) == sha(tmp_path / "cut" / name)
    assert [h["step"] for h in history] == list(range(5))
    lines = (tmp_path / "cut" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(5))


@pytest.mark.slow
def test_a_continued_training_ends_in_the_same_bits(llava_dir, tmp_path, monkeypatch):
    """Chunks of 8 cases: a step uses 12, so the continued training needs answers that the first one lacked."""
    monkeypatch.setattr(reference_answers, "CHUNK", 8)
    monkeypatch.setattr(algorithm, "CHUNK", 8)
    many = testbed.cases("train", 48, 0)
    run(llava_dir, many, tmp_path / "whole", steps=4, schedule="constant")
    run(llava_dir, many, tmp_path / "more", steps=1, schedule="constant")
    first = json.loads((tmp_path / "more" / "reference.json").read_text())["tokens"]
    _, history = run(llava_dir, many, tmp_path / "more", steps=4, schedule="constant")
    assert len(first) < len(json.loads((tmp_path / "more" / "reference.json").read_text())["tokens"])
    for name in ("adapter_model.safetensors", checkpoint.FILE):
        assert sha(tmp_path / "whole" / name) == sha(tmp_path / "more" / name)
    assert [h["step"] for h in history] == list(range(4))
    made = json.loads((tmp_path / "more" / "training.json").read_text())
    assert made["settings"]["steps"] == 4 and len(made["continued"]) == 1


@pytest.mark.slow
def test_a_training_that_cannot_continue_says_why(llava_dir, cases, tmp_path):
    run(llava_dir, cases, tmp_path / "a", steps=1)
    with pytest.raises(LayeralignError, match=r"fell to zero at its last step.*--schedule constant"):
        run(llava_dir, cases, tmp_path / "a", steps=2)
    run(llava_dir, cases, tmp_path / "b", steps=2, schedule="constant")
    with pytest.raises(LayeralignError, match="at least as many steps"):
        run(llava_dir, cases, tmp_path / "b", steps=1, schedule="constant")
    with pytest.raises(LayeralignError, match=r"settings\.lr"):
        run(llava_dir, cases, tmp_path / "b", steps=3, schedule="constant", lr=0.5)


def saving_each_step(*words):
    train.SAVE_EVERY = 1
    return main(list(words))


@pytest.mark.slow
def test_kill_9_at_random_moments_ends_in_the_same_bits(llava_dir, tmp_path):
    words = [
        "align", "--model", str(llava_dir), "--cases", "testbed:train", "--limit", "24", "--reward",
        "test_align:vowels", "--steps", "9", "--rows", "12", "--epochs", "1", "--max-new-tokens", "6",
        "--rank", "2", "--mix", "worst",
    ]  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert children.start(saving_each_step, *words, "--out", str(whole)).wait() == 0
    rng = random.Random(0)
    for kill in range(3):
        process = children.start(saving_each_step, *words, "--out", str(cut), out=tmp_path / str(kill))
        if not kill:  # before the first step
            process.wait_for((cut / "training.json").exists)
        else:
            seen = checkpoint_step(cut) + 2
            process.wait_for(lambda seen=seen: checkpoint_step(cut) >= seen)
            time.sleep(rng.random() / 8)
        process.send(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert checkpoint_step(cut) < 9
    assert children.start(saving_each_step, *words, "--out", str(cut)).wait() == 0
    for name in ("adapter_model.safetensors", checkpoint.FILE):
        assert sha(whole / name) == sha(cut / name)


def checkpoint_step(folder):
    try:
        with safe_open(folder / checkpoint.FILE, "pt") as opened:
            return int(json.loads(opened.metadata()["about"])["step"])
    except FileNotFoundError:
        return 0


def test_a_field_that_is_missing_is_null(tmp_path):
    record.compare(tmp_path, {"identity": {"revision": None}}, {"identity": {}})
    with pytest.raises(LayeralignError, match=r"identity\.revision = null"):
        record.compare(tmp_path, {"identity": {"other": None}}, {"identity": {"revision": 1}})


def test_a_folder_has_one_training_at_a_time(tmp_path):
    """The second one wrote the log anew, and the first one's lines were lost with its checkpoint's steps."""
    with record.begun(tmp_path / "a", {"settings": {}}, []):
        again = record.begun(tmp_path / "a", {"settings": {}}, [])
        with pytest.raises(LayeralignError, match=r"out .*a: another command writes to it"), again:
            pass
    with record.begun(tmp_path / "a", {"settings": {}}, []):
        pass


def test_a_continued_training_has_no_adapter_before_its_end(tmp_path):
    """Killed, it left the adapter of fewer steps, which a scan took for the one of the record."""
    made = {"settings": {"steps": 1, "schedule": "constant"}}
    with record.begun(tmp_path / "a", made, []):
        pass
    (tmp_path / "a" / checkpoint.FILE).touch()
    files = [tmp_path / "a" / name for name in ("adapter_config.json", "adapter_model.safetensors")]
    for steps in (1, 2):
        for file in files:
            file.touch()
        with record.begun(tmp_path / "a", {"settings": {"steps": steps, "schedule": "constant"}}, []):
            assert [file.exists() for file in files] == 2 * [steps == 1]


@pytest.mark.slow
def test_another_training_in_the_folder_is_refused(llava_dir, cases, tmp_path):
    run(llava_dir, cases, tmp_path / "a", steps=1)
    with pytest.raises(LayeralignError, match=r"settings\.lr"):
        run(llava_dir, cases, tmp_path / "a", steps=1, lr=0.5)
    with pytest.raises(LayeralignError, match="cases"):
        run(llava_dir, cases[:12], tmp_path / "a", steps=1)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("mine")
    with pytest.raises(LayeralignError, match="not empty"):
        run(llava_dir, cases, tmp_path / "b")


@pytest.mark.slow
def test_a_training_that_never_began_does_not_lock_its_folder(llava_dir, cases, tmp_path, monkeypatch):
    def fails(self, cases, answers):
        raise LayeralignError("no scene")

    score = Vowels.score
    monkeypatch.setattr(Vowels, "score", fails)
    with pytest.raises(LayeralignError, match="no scene"):
        run(llava_dir, cases, tmp_path / "a")
    (tmp_path / "a" / ".training.json.new").write_text("half")
    monkeypatch.setattr(Vowels, "score", score)
    run(llava_dir, cases, tmp_path / "a", steps=1, rows=16)
    assert json.loads((tmp_path / "a" / "training.json").read_text())["settings"]["rows"] == 16


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_log_on_a_full_disk_is_one_sentence(tmp_path, capfd):
    """TensorBoard's thread printed a traceback, and the sentence named no file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(
            LayeralignError, match=r"out .*: cannot be written \(File too large\); the same command"
        ):
            _fill(log.Log(tmp_path, [], 10**6, writes=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "Traceback" not in capfd.readouterr().err


def test_an_adapter_on_a_full_disk_is_one_sentence_and_the_old_one_stays(llava, tmp_path):
    """It was called a bug in layeralign, and an adapter of a finished training lost its config."""
    saved = Policy(llava_copy(llava), 2, 0)
    saved.save(tmp_path / "a")
    before = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (100, 2_000):  # the config, then the weights
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(LayeralignError, match=r"out .*: the adapter cannot be written \(.*too large"):
                saved.save(tmp_path / "a")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()} == before
    assert before.keys() == {"README.md", "adapter_config.json", "adapter_model.safetensors"}


def test_a_checkpoint_on_a_full_disk_is_one_sentence(tmp_path):
    """It was called a bug in layeralign."""
    weight = torch.nn.Parameter(torch.zeros(5_000))
    state = checkpoint.State({"weight": weight}, torch.optim.AdamW([weight]))
    checkpoint.save(tmp_path / checkpoint.FILE, state, 1)
    before = sha(tmp_path / checkpoint.FILE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(LayeralignError, match=r"out .*: cannot be written \(.*File too large"):
            checkpoint.save(tmp_path / checkpoint.FILE, state, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == [checkpoint.FILE]
    assert sha(tmp_path / checkpoint.FILE) == before


def _fill(opened):
    with opened as writer:
        for step in range(10_000):
            writer.add({"step": step, "exits": {str(exit): 1.0 for exit in range(20)}})


WORDS = b"".join(b'{"step": %d, "loss": "low"}\n' % step for step in range(2))


@pytest.mark.slow
def test_a_truncated_log_is_refused(llava_dir, cases, tmp_path):
    run(llava_dir, cases, tmp_path / "a", steps=2)
    log = tmp_path / "a" / "log.jsonl"
    for content in (log.read_bytes()[:-20], b"\xd4\n", b"1\n2\n", b"[" * 10**5, WORDS):
        log.write_bytes(content)
        with pytest.raises(LayeralignError, match="does not hold the 2 steps"):
            run(llava_dir, cases, tmp_path / "a", steps=2)


@pytest.mark.slow
def test_reference_answers_are_private_and_made_once(llava_dir, cases, tmp_path, monkeypatch):
    run(llava_dir, cases, tmp_path / "a", steps=1)
    assert (tmp_path / "a" / "reference.json").stat().st_mode & 0o777 == 0o600
    checkpoint_file = tmp_path / "a" / checkpoint.FILE
    known = checkpoint_file.read_bytes()
    monkeypatch.setattr(ReferenceAnswers, "_answer", None)
    run(llava_dir, cases, tmp_path / "a", steps=1)
    assert checkpoint_file.read_bytes() == known


@pytest.mark.slow
def test_a_trained_model_is_not_taken_for_the_one_that_was_loaded(llava_dir, cases, tmp_path):
    plain = identity(load(llava_dir))
    vlm, _ = run(llava_dir, cases, tmp_path / "a", steps=1)
    assert identity(vlm) != plain
    assert identity(vlm)["adapter"] == identity(load(llava_dir, adapter=tmp_path / "a"))["adapter"]
    with pytest.raises(LayeralignError, match="has an adapter already"):
        train.train(vlm, cases, Vowels(), tmp_path / "b", SMALL)


@pytest.mark.slow
def test_consistency_aims_at_the_default_exit(llava_dir, cases, tmp_path):
    """At the default exit there is nothing to learn; at another the target is what the default's features give."""
    one = run(
        llava_dir,
        cases,
        tmp_path / "a",
        method="consistency",
        mix="uniform",
        exits="default",
        steps=1,
        epochs=1,
    )[1]
    other = run(
        llava_dir, cases, tmp_path / "b", method="consistency", mix="uniform", exits="0", steps=1, epochs=1
    )[1]
    assert one[0]["imitation_loss"] == pytest.approx(0, abs=1e-3)
    assert other[0]["imitation_loss"] > 0.01


@pytest.mark.slow
def test_two_processes_make_the_update_of_one(tmp_path, monkeypatch):
    """Of benchmarks/data_parallel.py, started with what torch's launcher tells a process."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    started, logs = [], []
    for n in (1, 2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        for rank in range(n):
            told = {
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": n,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }
            for name, value in told.items():
                monkeypatch.setenv(name, str(value))
            said = tmp_path / f"said-{n}-{rank}"
            started.append(children.start(data_parallel.worker, tmp_path / str(n), 2, out=said))
    for process in started:
        assert process.wait() == 0, process.said()
    for n in (1, 2):
        assert json.loads((tmp_path / str(n) / "training.json").read_text())["processes"] == n
        logs.append([json.loads(line) for line in (tmp_path / str(n) / "log.jsonl").read_text().splitlines()])
    assert len(logs[0]) == 2
    for one, two in zip(*logs, strict=True):
        for name in data_parallel.NAMES[:-1]:
            assert two[name] == pytest.approx(one[name], rel=1e-5, abs=1e-5), name


@pytest.mark.slow
def test_too_few_rows_are_refused(llava_dir, cases, tmp_path):
    with pytest.raises(LayeralignError, match="too few"):
        run(llava_dir, cases, tmp_path / "a", rows=1)
    with pytest.raises(LayeralignError, match="too few are left"):
        run(llava_dir, cases, tmp_path / "a", rows=6, minibatches=5)


@pytest.mark.parametrize("method", ["ppo", "LPPO"])
def test_unknown_methods_are_refused(method):
    with pytest.raises(LayeralignError, match="expected one of lppo"):
        AlignSettings(method=method)


# --- adapters from elsewhere


@pytest.mark.slow
def test_adapters_that_do_not_fit_are_refused(llava_dir, cases, tmp_path):
    run(llava_dir, cases, tmp_path / "a", steps=1)
    with pytest.raises(LayeralignError, match="does not fit this model"):
        load("testbed", adapter=tmp_path / "a", allow_base=True)
    with pytest.raises(LayeralignError, match=r"no adapter_config\.json"):
        load(llava_dir, adapter=tmp_path)
    config = tmp_path / "a" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"peft_type": "LOHA"}))
    with pytest.raises(LayeralignError, match="'LOHA'; expected LORA"):
        load(llava_dir, adapter=tmp_path / "a")
    (tmp_path / "a" / "adapter_model.safetensors").rename(tmp_path / "a" / "adapter_model.bin")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"peft_type": "LORA"}))
    with pytest.raises(LayeralignError, match="other formats can run code"):
        load(llava_dir, adapter=tmp_path / "a")


@pytest.mark.slow
def test_an_adapter_that_would_alter_the_base_is_refused(llava_dir, cases, tmp_path):
    run(llava_dir, cases, tmp_path / "a", steps=1)
    config = tmp_path / "a" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"init_lora_weights": "pissa"}))
    with pytest.raises(LayeralignError, match="'pissa', which changes"):
        load(llava_dir, adapter=tmp_path / "a")


@pytest.mark.slow
def test_a_broken_checkpoint_is_said_to_be_one(llava_dir, cases, tmp_path):
    run(llava_dir, cases, tmp_path / "a", steps=1)
    file = tmp_path / "a" / checkpoint.FILE
    whole = file.read_bytes()
    flipped, step = bytearray(whole), whole.replace(b'\\"step\\": 1', b'\\"step\\": 0')
    flipped[len(whole) // 2] ^= 0x40
    assert step != whole
    for content in (b"half", bytes(flipped), step):  # safetensors has no hash of its own
        file.write_bytes(content)
        with pytest.raises(LayeralignError, match=r"checkpoint\.safetensors: is damaged"):
            run(llava_dir, cases, tmp_path / "a", steps=1)


def test_damaged_reference_answers_are_not_learned(tmp_path):
    answers = ReferenceAnswers(None, None, None)
    for content in ("{", "[]", json.dumps({"sha256": "0", "tokens": {"a": [1]}})):
        (tmp_path / "reference.json").write_text(content)
        with pytest.raises(LayeralignError, match=r"reference\.json is damaged"):
            answers.make([], None, tmp_path)


@pytest.mark.slow
def test_a_resumed_training_writes_its_cases_again(llava_dir, cases, tmp_path):
    """Without them, a scan would not know that it asks what was trained on."""
    run(llava_dir, cases, tmp_path / "a", steps=1)
    file = tmp_path / "a" / "trained_on.json"
    was = file.read_text()
    file.write_text('{"asked": []}')
    run(llava_dir, cases, tmp_path / "a", steps=1)
    assert file.read_text() == was


@pytest.mark.slow
def test_nan_stops_with_the_last_good_adapter(llava_dir, cases, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SAVE_EVERY", 1)
    calls = []

    def broken(self, asked, answers):
        calls.append(1)
        return torch.full((len(answers),), math.nan if len(calls) == 4 else 1.0)

    monkeypatch.setattr(Vowels, "score", broken)
    with pytest.raises(LayeralignError, match=r"stopped at step 2.*nan.*after 2 steps"):
        run(llava_dir, cases, tmp_path / "a", steps=6)
    with safe_open(tmp_path / "a" / "adapter_model.safetensors", "pt") as opened:
        assert all(torch.isfinite(opened.get_tensor(name)).all() for name in opened.keys())  # noqa: SIM118


def test_collapse_stops_after_several_steps_and_gives_the_reason():
    fine = {"kl_per_token": 0.1, "length": 12.0, "reward": 0.5, "policy_loss": 0.1}
    assert health.stop_reason([fine] * 20) is None
    for bad, word in (
        ({"kl_per_token": 6.0}, "KL"),
        ({"length": 1.0}, "tokens long"),
        ({"reward": -9.0}, "reward"),
    ):
        history = [fine] * 8 + [fine | bad] * (health.MAX_PROBLEMS - 1)
        assert health.stop_reason(history) is None and health.problem(history) is not None
        assert word in health.stop_reason([*history, fine | bad])
    assert "nan" in health.stop_reason([fine, fine | {"policy_loss": math.nan}])


@pytest.mark.slow
def test_methods_without_rollouts_cannot_follow_harm(llava_dir, cases, tmp_path):
    with pytest.raises(LayeralignError, match="mix worst"):
        run(llava_dir, cases, tmp_path / "a", method="sft")
    with pytest.raises(LayeralignError, match=r"needs one .*--method consistency"):
        train.train(load(llava_dir), cases, None, tmp_path / "b", SMALL)
    with pytest.raises(LayeralignError, match="none is harmful"):
        run(llava_dir, [case for case in cases if case.kind != "harmful"], tmp_path / "c")


@pytest.mark.slow
def test_an_adapter_that_would_be_put_outside_its_part_is_refused(llava, monkeypatch):
    """As PEFT does in some models with experts, where it reads a pattern as the names' ends."""
    plain = policy.get_peft_model

    def elsewhere(model, config):
        config.target_modules = ["q_proj"]
        return plain(model, config)

    monkeypatch.setattr(policy, "get_peft_model", elsewhere)
    with pytest.raises(
        LayeralignError, match=r"outside the part that is trained, such as into .*vision_tower"
    ):
        Policy(llava_copy(llava), 2, 0)
