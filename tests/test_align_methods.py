"""The methods that L-PPO is compared with, on real, tiny models."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

import layeralign
from layeralign import LayeralignError
from layeralign.testbed import cases as testbed
from layeralign.training import train
from layeralign.training.algorithm import Meter
from layeralign.training.baselines.critic_free import grpo, rloo
from layeralign.training.baselines.imitation import Imitation
from layeralign.training.baselines.latent import Latent
from layeralign.training.baselines.preference import Dpo
from layeralign.training.settings import AlignSettings
from layeralign.vlm.load import load
from test_align import Vowels

SMALL = AlignSettings(steps=4, rows=12, epochs=2, lr=1e-2, max_new_tokens=6, rank=2, group=3)


@pytest.fixture(scope="module")
def cases():
    return testbed.cases("train", 24, 0)


def run(folder, cases, out, **changes):
    vlm = load(folder)
    settings = replace(SMALL, **changes)
    return vlm, train.train(vlm, cases, Vowels() if settings.rolls_out else None, out, settings)


@pytest.fixture
def algorithm(llava_dir, cases, tmp_path, monkeypatch):
    """Return a method's algorithm before its first step."""

    def make(**changes):
        caught = []
        monkeypatch.setattr(train, "_run", lambda algorithm, out: caught.append(algorithm) or [])
        run(llava_dir, cases, tmp_path / "a", **changes)
        (made,) = caught
        made.begin(tmp_path / "a")
        return made

    return make


def microbatches(algorithm, seen):
    """Do a step without its updates; return the microbatches that it prepared."""
    algorithm.update = lambda minibatches, meter: seen.extend(m for part in minibatches for m in part)
    algorithm.step(0)
    return seen


# --- rloo and grpo


def test_advantages_of_groups_by_hand():
    returns = torch.tensor([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]])
    assert rloo(returns).tolist() == [[-3.0, -1.5, 4.5], [0.0, 0.0, 0.0]]  # 1 - (2 + 6) / 2, ...
    deviation = math.sqrt((4 + 1 + 9) / 3)
    wanted = torch.tensor([[-2 / deviation, -1 / deviation, 3 / deviation], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(grpo(returns), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_a_group_is_one_case_at_one_exit_and_shares_no_value_head(algorithm, method):
    made = algorithm(method=method, mix="worst", whiten=False, kl_coef=0.0, rows=24)
    seen = microbatches(made, [])
    rows = {i: row for micro in seen for i, row in zip(micro.indices, micro.rows, strict=False)}
    advantages = {i: micro.advantages[at] for micro in seen for at, i in enumerate(micro.indices)}
    assert len(rows) == 12 and len({(case.id, exit) for case, exit in rows.values()}) == 4
    for start in range(0, 12, 3):
        assert rows[start] == rows[start + 1] == rows[start + 2]
        assert sum(float(advantages[start + k][0]) for k in range(3)) == pytest.approx(0, abs=1e-4)
    assert all(float(made.value_loss(micro, None).abs().sum()) == 0 for micro in seen)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rloo", "grpo"])
def test_a_reward_is_learned_without_a_critic(llava_dir, cases, tmp_path, monkeypatch, method):
    monkeypatch.setattr(
        Vowels, "score", lambda self, asked, answers: torch.tensor([-len(a) / 10 for a in answers])
    )
    _, history = run(llava_dir, cases, tmp_path / "a", method=method, steps=25, rows=33, retention_share=0,
                     kl_coef=0.0, harm_weight=1.0)  # fmt: skip
    first, last = (sum(h["length"] for h in part) / 3 for part in (history[:3], history[-3:]))
    assert last < first - 1
    assert "explained_variance" not in history[0]


# --- dpo


@pytest.mark.slow
def test_dpo_starts_at_the_reference_and_learns_the_preference(llava_dir, cases, tmp_path):
    _, history = run(llava_dir, cases, tmp_path / "a", method="dpo", steps=12, rows=24)
    weight = [4.0] * 6 + [1.0] * 6
    assert history[0]["pairs"] == 1.0  # a random model refuses nothing
    assert history[0]["preference_loss"] <= sum(weight) / 12 * math.log(2) + 1e-3
    assert history[-1]["preference_loss"] < history[0]["preference_loss"] / 2
    assert history[-1]["preferred"] > 0.9


@pytest.mark.slow
def test_dpos_loss_by_hand(algorithm):
    """The margin of the reference policy is that of the policy itself before the first update."""
    made: Dpo = algorithm(method="dpo", rows=24)
    for micro in microbatches(made, []):
        if not micro.n:
            continue
        outputs = made.policy(micro.batch).trained(micro.n)
        loss = made.loss(micro, outputs, Meter(0)).detach()
        assert float(loss) == pytest.approx(float(micro.weights.sum()) * math.log(2), rel=1e-3)


@pytest.mark.slow
def test_a_refused_answer_is_no_pair(algorithm, monkeypatch):
    monkeypatch.setattr("layeralign.training.baselines.preference.refuses", lambda text: True)
    made = algorithm(method="dpo", rows=24)
    for micro in microbatches(made, []):
        kinds = [case.kind for case, _ in micro.rows[: micro.n]]
        assert micro.weights.tolist() == [0.0 if kind == "harmful" else 1.0 for kind in kinds]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rloo", "dpo", "latent", "steer"])
def test_a_step_of_few_rows_has_parts_without_a_trained_row(llava_dir, cases, tmp_path, method):
    _, history = run(llava_dir, cases, tmp_path / "a", method=method, rows=8, steps=2, group=2)
    assert len(history) == 2


# --- latent


@pytest.mark.slow
def test_latent_moves_features_within_its_radius_to_a_higher_loss(algorithm):
    made: Latent = algorithm(method="latent", latent_radius=0.5, latent_steps=3, rows=24)
    (micro, *_) = [m for m in microbatches(made, []) if m.n]
    state = made._rng.get_state()
    moved = made.seen(micro)
    made._rng.set_state(state)
    shifted = [made._shifted(one) for one in micro.batch.features[: micro.n] if one is not None]
    pairs = [one for one in zip(micro.batch.features, moved.features, strict=True) if one[0] is not None]
    trained = sum(one is not None for one in micro.batch.features[: micro.n])
    for (was, now), (start, limit) in zip(pairs[:trained], shifted, strict=True):
        assert limit == pytest.approx(0.5 * float(was.tokens.norm(dim=-1).mean()))
        assert float((now.tokens - start).norm(dim=-1).max()) <= limit * 1.001
        assert not torch.equal(now.tokens, was.tokens)
    assert all(was is now for was, now in pairs[trained:])  # retention rows stay as they are

    def loss(batch):
        with torch.no_grad():
            return float(made.loss(micro, made.policy(batch).trained(micro.n), Meter(0)))

    at = [i for i, one in enumerate(micro.batch.features[: micro.n]) if one is not None]
    random = made._with(micro.batch, {i: tokens for i, (tokens, _) in zip(at, shifted, strict=True)})
    assert loss(moved) > loss(random)


@pytest.mark.slow
def test_latent_sees_the_default_exit_alone(llava_dir, cases, tmp_path):
    _, history = run(llava_dir, cases, tmp_path / "a", method="latent", mix="worst", exits="all")
    assert {exit for step in history for exit in step["exits"]} == {"4"}
    assert all(math.isfinite(step["imitation_loss"]) for step in history)


@pytest.mark.slow
def test_latent_training_without_pictures_is_supervised_training(llava_dir, cases, tmp_path):
    plain = [replace(case, picture=None) for case in cases]
    histories = [
        run(llava_dir, plain, tmp_path / method, method=method)[1] for method in ("latent", "sft-default")
    ]
    losses = [[step["imitation_loss"] for step in history] for history in histories]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


# --- repair


@pytest.mark.slow
def test_repair_changes_the_projector_alone_and_learns(llava_dir, cases, tmp_path):
    out = tmp_path / "a"
    vlm, history = run(llava_dir, cases, out, method="repair", steps=12, rows=24, epochs=4)
    first, last = (sum(h["imitation_loss"] for h in part) / 3 for part in (history[:3], history[-3:]))
    assert last < first
    with safe_open(out / "adapter_model.safetensors", "pt") as opened:
        names = list(opened.keys())
        assert any(opened.get_tensor(name).abs().max() > 0 for name in names if "lora_B" in name)
    assert names and all("multi_modal_projector" in name for name in names)
    assert "LoRA on the projector" in (out / "README.md").read_text()
    picture = cases[0].picture.open()
    again = load(llava_dir, adapter=out)
    for exit in (1, 4):
        (ours,), (theirs,) = (model.encode([picture], [exit])[exit] for model in (vlm, again))
        torch.testing.assert_close(ours.tokens, theirs.tokens, rtol=1e-3, atol=1e-4)
        assert not ours.tokens.requires_grad
    (start,) = load(llava_dir).encode([picture], [1])[1]
    assert (ours.tokens - start.tokens).abs().max() > 1e-4
    assert layeralign.scan(again, cases[:4], tmp_path / "run", exits="1", max_new_tokens=2).summary


@pytest.mark.slow
def test_repairs_reference_never_sees_the_trained_projector(algorithm):
    made: Imitation = algorithm(method="repair", rows=24)
    seen = microbatches(made, [])
    for name, value in made.policy.trainable().items():
        if "lora_B" in name:
            value.data.normal_()
    micro = next(m for m in seen if m.n)
    again = made.collate(micro.rows, micro.answers)
    for was, now in zip(micro.batch.features, again.features, strict=True):
        assert (was is None) == (now is None)
        if was is not None:
            assert torch.equal(was.tokens, now.tokens)
    assert any(one.tokens.requires_grad for one in made.seen(micro).features if one is not None)


# --- steer


@pytest.mark.slow
def test_steering_is_the_ridge_regression_that_numpy_finds(algorithm, tmp_path):
    made = algorithm(method="steer", steps=1, rows=48, steer_strength=2.0)
    rows, wanted, states = [], [], {"harmful": [], "others": []}
    add = made._add

    def watched(micro, sums):
        with made._watched() as seen:
            made.reference_outputs(micro.batch)
        mask = torch.nn.functional.pad(micro.mask, (0, 0, 0, len(micro.rows) - micro.n))
        mask[micro.n :] = micro.retention_mask
        for at, (case, exit) in enumerate(micro.rows):
            places = micro.batch.states[at][mask[at]]
            rows.append(seen["inner"][at, places])
            wanted.append(torch.full((len(places),), float(case.kind == "harmful")))
            if exit == 4:
                kind = "harmful" if case.kind == "harmful" else "others"
                states[kind].append(seen["state"][at, places[0]])
        add(micro, sums)

    made._add = watched
    metrics = made.step(0)
    x, y = torch.cat(rows).double(), torch.cat(wanted).double()
    ridge = 1e-3 * (x**2).sum(0).mean() * torch.eye(x.shape[1], dtype=torch.float64)
    gate = torch.linalg.lstsq(x.T @ x + ridge, x.T @ y).solution
    direction = torch.stack(states["harmful"]).mean(0) - torch.stack(states["others"]).mean(0)
    linear = made._linear
    torch.testing.assert_close(linear.lora_A["default"].weight[0].double(), gate, rtol=1e-2, atol=1e-4)
    added = linear.lora_B["default"].weight[:, 0] * linear.scaling["default"]
    torch.testing.assert_close(added, 2.0 * direction, rtol=1e-3, atol=1e-5)
    assert metrics["gate_error"] == pytest.approx(float(((x @ gate - y) ** 2).mean()), rel=1e-2, abs=1e-4)


@pytest.mark.slow
def test_steering_needs_both_kinds_at_the_default_exit(llava_dir, cases, tmp_path):
    with pytest.raises(LayeralignError, match="use a larger --retention-share"):
        run(llava_dir, cases, tmp_path / "a", method="steer", exits="1", retention_share=0.0)


# --- all


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rloo", "dpo", "latent", "repair", "steer"])
def test_a_stopped_training_ends_in_the_same_bits(llava_dir, cases, tmp_path, monkeypatch, method):
    kind = {"rloo": "CriticFree", "dpo": "Dpo", "latent": "Latent", "repair": "Repair", "steer": "Steering"}
    cls = getattr(train, kind[method])
    run(llava_dir, cases, tmp_path / "whole", method=method, rows=16)
    step, monkey = cls.step, pytest.MonkeyPatch()

    def stops(self, number):
        if number == 2:
            raise KeyboardInterrupt
        return step(self, number)

    monkey.setattr(cls, "step", stops)
    monkey.setattr(train, "SAVE_EVERY", 1)
    with pytest.raises(KeyboardInterrupt):
        run(llava_dir, cases, tmp_path / "cut", method=method, rows=16)
    monkey.undo()
    run(llava_dir, cases, tmp_path / "cut", method=method, rows=16)
    one, other = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert one == other
