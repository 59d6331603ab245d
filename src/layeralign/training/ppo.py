"""The maths of PPO on answers, as pure functions of tensors; no model, no state.

Shapes: R rows (answers), T answer tokens, padded on the right. A value at a position where
`mask` is False does not count and may be any finite number. Floats are float32 unless a caller gives
float64. Losses are per token and are not averaged here: the caller divides their sum by the number of
answer tokens of the whole minibatch, over every microbatch and process.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from layeralign.training.settings import KlEstimator


def answer_mask(lengths: Tensor, width: int) -> Tensor:
    """Return the positions of answer tokens: bool [R, width] from int [R] lengths that count the end token.

    The mask comes from lengths, not from pad ids: a pad token may be an end token, and may be sampled.
    """
    return torch.arange(width, device=lengths.device) < lengths[:, None]


def token_log_probs(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the log-probability of each token under softmax(logits / temperature), in float32.

    Args:
        logits: [..., V]; -inf where a token cannot be sampled.
        tokens: int64 [...].
        temperature: the sampling temperature of the tokens, above 0.
    """
    return -F.cross_entropy(
        logits.float().flatten(0, -2) / temperature, tokens.flatten(), reduction="none"
    ).view(tokens.shape)


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy of softmax(logits / temperature) in nats, [...] for logits [..., V]; -inf logits count 0."""
    log_probs = (logits.float() / temperature).log_softmax(-1)
    found: Tensor = torch.special.entr(log_probs.exp()).sum(-1)
    return found


def kl_estimate(log_probs: Tensor, reference: Tensor, estimator: KlEstimator = "k1") -> Tensor:
    """Estimate of KL(π ‖ reference) per sampled token, in nats; any shape.

    `k1` = log π - log ref, unbiased and of either sign; `k3` = ref/π - 1 - log(ref/π), unbiased, never
    negative, with less variance (Schulman, "Approximating KL divergence", 2020).
    """
    if estimator == "k1":
        return log_probs - reference
    log_ratio = reference - log_probs
    estimate: Tensor = torch.expm1(log_ratio) - log_ratio
    return estimate


def full_kl(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(reference ‖ π) over the whole vocabulary, in nats: [...] for logits [..., V] of both.

    A policy cannot lower this direction by dropping answers that the reference gives.
    """
    ours, theirs = logits.float().log_softmax(-1), reference.float().log_softmax(-1)
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Return the reward per token [R, T]: -kl_coef·KL at every token, plus the score [R] at the last token.

    Source: paper, "L-PPO": r(x, y) - η·KL(π ‖ π_SFT); spread over tokens as in InstructGPT (Ouyang et al.
    2022).
    """
    rewards = -kl_coef * kl * mask
    last = mask.sum(1, keepdim=True) - 1
    return rewards.scatter_add(1, last, scores.to(rewards)[:, None])


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantages and returns, both [R, T], 0 where masked (Schulman et al. 2016, eq. 16).

    delta_t = r_t + gamma·V_{t+1} - V_t; A_t = delta_t + gamma·lam·A_{t+1}; after the last token V is 0.
    Returns are A + V, the target of the value head.
    """
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(following)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = torch.where(mask[:, t], delta + gamma * lam * following, 0.0)
        next_value = torch.where(mask[:, t], values[:, t], 0.0)
        advantages[:, t] = following
    return advantages, (advantages + values) * mask


def whiten(advantages: Tensor, mask: Tensor, moments: Tensor | None = None) -> Tensor:
    """Return advantages with mean 0 and variance 1 over all unmasked tokens, 0 where masked.

    Args:
        advantages: [R, T].
        mask: bool [R, T].
        moments: sums over every process of (1, A, A²), float64 [3]; by default the sums over these rows.
    """
    count, first, second = (token_moments(advantages, mask) if moments is None else moments).tolist()
    mean = first / count
    variance = max(second / count - mean**2, 0.0)
    return torch.where(mask, (advantages - mean) / (variance + 1e-8) ** 0.5, 0.0)


def token_moments(values: Tensor, mask: Tensor) -> Tensor:
    """Return the sums of (1, x, x²) over unmasked tokens, float64 [3]; they add up over processes."""
    chosen = values[mask].double()
    return torch.stack([torch.tensor(float(len(chosen)), dtype=torch.float64, device=chosen.device),
                        chosen.sum(), chosen.square().sum()])  # fmt: skip


def policy_loss(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """PPO's clipped loss per token, any shape: max(-K·A, -clip(K, 1-clip, 1+clip)·A), K = π / π_old.

    Source: Schulman et al. 2017, eq. 7; paper, "L-PPO", where both policies see the exit's features.
    """
    ratio = (log_probs - old_log_probs).exp()
    return torch.maximum(-ratio * advantages, -ratio.clamp(1 - clip, 1 + clip) * advantages)


def clipped(log_probs: Tensor, old_log_probs: Tensor, clip: float) -> Tensor:
    """Return where the ratio is outside [1-clip, 1+clip]: bool of the same shape."""
    return ((log_probs - old_log_probs).exp() - 1).abs() > clip


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None = None) -> Tensor:
    """Return half the squared error per token, any shape.

    With `clip`, it is the larger of two errors: that of the value, and that of the value clamped to `clip`
    around the old value (Schulman et al.'s code; Ouyang et al. 2022).
    """
    loss = (values - returns).square()
    if clip is not None:
        clamped = old_values + (values - old_values).clamp(-clip, clip)
        loss = torch.maximum(loss, (clamped - returns).square())
    return loss / 2


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Return the sum over unmasked positions; a masked nan or infinity has no effect."""
    return torch.where(mask, values, 0.0).sum()


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """Return 1 - Var(returns - values) / Var(returns) of two [n] tensors; 0 for constant returns."""
    variance = returns.var(correction=0) if len(returns) else 0
    return 0.0 if variance == 0 else float(1 - (returns - values).var(correction=0) / variance)
