"""PPO's maths against numbers worked out by hand, and those that torchtune's tests publish."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from layeralign.training import ppo

LN2 = math.log(2)


def t(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def close(found, wanted):
    torch.testing.assert_close(found, torch.as_tensor(wanted, dtype=found.dtype), rtol=1e-6, atol=1e-9)


def test_masks_come_from_lengths():
    assert ppo.answer_mask(torch.tensor([1, 3]), 3).tolist() == [[True, False, False], [True, True, True]]


def test_log_probs_by_hand():
    logits = torch.tensor([[0.0, math.log(3), -1e9]])  # probabilities 1/4, 3/4, 0
    close(ppo.token_log_probs(logits, torch.tensor([1])), [math.log(0.75)])
    # at temperature 2 the odds are sqrt(3) to 1
    close(ppo.token_log_probs(logits, torch.tensor([1]), 2.0), [math.log(3**0.5 / (1 + 3**0.5))])


def test_entropy_by_hand():
    close(ppo.entropy(torch.tensor([[0.0, 0.0, -1e9]])), [LN2])
    close(ppo.entropy(torch.tensor([[0.0, math.log(3)]])), [-0.25 * math.log(0.25) - 0.75 * math.log(0.75)])


def test_kl_estimates_by_hand():
    ours, theirs = t(math.log(0.5)), t(math.log(0.25))
    close(ppo.kl_estimate(ours, theirs, "k1"), [LN2])
    close(ppo.kl_estimate(ours, theirs, "k3"), [0.5 - 1 + LN2])
    assert ppo.kl_estimate(theirs, ours, "k1") < 0 < ppo.kl_estimate(theirs, ours, "k3")


def test_kl_estimates_are_unbiased():
    ours, theirs = torch.tensor([0.2, 0.5, 0.3]).double(), torch.tensor([0.6, 0.1, 0.3]).double()
    exact = (ours * (ours / theirs).log()).sum()
    for estimator in ("k1", "k3"):
        close((ours * ppo.kl_estimate(ours.log(), theirs.log(), estimator)).sum(), exact)


def test_full_kl_by_hand_and_with_a_suppressed_token():
    ours, theirs = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.25, 0.75, 0.0]])
    logits, reference = (p.clamp(min=1e-30).log().masked_fill(p == 0, -1e9) for p in (ours, theirs))
    close(ppo.full_kl(logits, reference), [0.25 * math.log(0.5) + 0.75 * math.log(1.5)])
    close(ppo.full_kl(reference, reference), [0.0])


def test_token_rewards_by_hand():
    mask = ppo.answer_mask(torch.tensor([2, 3]), 3)
    kl = t((1.0, 2.0, 99.0), (1.0, 0.0, -1.0))
    found = ppo.token_rewards(t(10.0, 20.0).squeeze(), kl, mask, 0.1)
    close(found, [[-0.1, 9.8, 0.0], [-0.1, 0.0, 20.1]])


def test_gae_by_hand():
    # gamma 0.9, lambda 0.5; deltas: 1 + 0.9·0.25 - 0.5 = 0.725; 2 + 0 - 0.25 = 1.75 (last token)
    mask = ppo.answer_mask(torch.tensor([2]), 3)
    advantages, returns = ppo.gae(t((1.0, 2.0, 7.0)), t((0.5, 0.25, 9.0)), mask, 0.9, 0.5)
    close(advantages, [[0.725 + 0.45 * 1.75, 1.75, 0.0]])
    close(returns, [[0.725 + 0.45 * 1.75 + 0.5, 2.0, 0.0]])


def test_gae_as_torchtune_publishes_it():
    g, lam = 0.9, 0.95
    ones = torch.ones(1, 4, dtype=torch.bool)
    _, returns = ppo.gae(t((0.0, 0.0, 0.0, 1.0)), t((0.0, 0.0, 0.0, 1.0)), ones, g, lam)
    close(returns, [[g * g * g * lam * lam, g * g * lam, g, 1.0]])


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.data())
def test_gae_with_lambda_one_is_the_discounted_sum_less_the_value(rewards, data):
    n = len(rewards)
    values = data.draw(st.lists(st.floats(-5, 5), min_size=n, max_size=n))
    mask = torch.ones(1, n, dtype=torch.bool)
    advantages, returns = ppo.gae(t(rewards), t(values), mask, 0.9, 1.0)
    for i in range(n):
        total = sum(0.9 ** (j - i) * rewards[j] for j in range(i, n))
        assert float(returns[0, i]) == pytest.approx(total, abs=1e-9)
        assert float(advantages[0, i]) == pytest.approx(total - values[i], abs=1e-9)


def test_whitening_by_hand_whatever_the_split():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    values = t((1.0, 2.0, 50.0), (3.0, 4.0, 5.0))  # mean 3, variance 2
    wanted = torch.tensor([[-2.0, -1.0, 0.0], [0.0, 1.0, 2.0]]) / 2**0.5
    close(ppo.whiten(values, mask), wanted)
    moments = ppo.token_moments(values[:1], mask[:1]) + ppo.token_moments(values[1:], mask[1:])
    close(ppo.whiten(values[1:], mask[1:], moments), wanted[1:])


@pytest.mark.parametrize(
    ("move", "advantage", "loss"),
    [
        (1.0, 1.0, -1.2),
        (-1.0, 1.0, -math.exp(-1)),
        (1.0, -1.0, math.e),
        (-1.0, -1.0, 0.8),
        (0.1, 1.0, -math.exp(0.1)),
    ],
)
def test_clipped_loss_by_hand(move, advantage, loss):
    """The first and the last as torchtune publishes them (its ratio of 1/e clips to 0.8 where A < 0)."""
    old = t(-0.5, -0.8, -1.2).squeeze()
    found = ppo.policy_loss(old + move, old, torch.full_like(old, advantage), 0.2)
    close(found, [loss] * 3)


def test_the_clipped_loss_has_no_gradient_where_it_is_clipped():
    log_probs = torch.tensor([0.5, -0.5, 0.1], requires_grad=True)  # ratios 1.65, 0.61, 1.11 of an old 1
    ppo.policy_loss(log_probs, torch.zeros(3), torch.tensor([1.0, -1.0, 1.0]), 0.2).sum().backward()
    close(log_probs.grad, [0.0, 0.0, -math.exp(0.1)])
    assert ppo.clipped(log_probs, torch.zeros(3), 0.2).tolist() == [True, True, False]


def test_value_loss_by_hand():
    values, old, returns = t(1.0, 3.0).squeeze(), t(0.0, 3.0).squeeze(), t(1.5, 1.0).squeeze()
    close(ppo.value_loss(values, old, returns), [0.125, 2.0])
    # held within 0.2 of the old one the first is 0.2, and (0.2 - 1.5)² / 2 is larger
    close(ppo.value_loss(values, old, returns, 0.2), [0.845, 2.0])


def test_what_is_masked_does_not_leak():
    mask = torch.tensor([[True, False]])
    assert float(ppo.masked_sum(torch.tensor([[2.0, math.nan]]), mask)) == 2.0


def test_explained_variance_by_hand():
    returns = t(1.0, 2.0, 3.0, 4.0).squeeze()
    assert ppo.explained_variance(returns, returns) == 1.0
    assert ppo.explained_variance(torch.zeros_like(returns), returns) == 0.0
    assert ppo.explained_variance(returns * 2, returns) == pytest.approx(0.0)  # the error is as wide
    assert ppo.explained_variance(returns, torch.ones_like(returns)) == 0.0
    assert ppo.explained_variance(returns[:0], returns[:0]) == 0.0
