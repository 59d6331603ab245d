"""Latent adversarial training: right answers next to features of the default exit that were moved.

No other exit is ever seen. If the trained model refuses at early exits all the same, then training at the
exits themselves is not needed. The features are the language model's input, after the projector. Source:
Casper et al. 2024, "Defending Against Unforeseen Failure Modes with Latent Adversarial Training"; there the
hidden states of a language model are moved.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from layeralign.decode.sampling import seed_of
from layeralign.training.algorithm import Meter
from layeralign.training.baselines.imitation import Imitated, Imitation
from layeralign.training.data.rollout import Batch
from layeralign.vlm.feature import Feature

_SCALES = 0.1, 2.0
"""Smallest and largest factor of the features; it is drawn log-uniformly."""


class Latent(Imitation):
    """The method `latent`."""

    def step(self, number: int) -> dict[str, Any]:
        """Do one step of imitation, with draws that depend on the step alone."""
        seed = seed_of(self.settings.seed, "latent", number, self.workers.rank)
        self._rng = torch.Generator().manual_seed(seed % 2**63)
        return super().step(number)

    def seen(self, micro: Imitated) -> Batch:
        """Return the batch with the trained rows' features moved to where the loss is high.

        Each row's features are scaled at random and shifted by one random vector. Then `latent_steps`
        gradient steps move every token by at most `latent_radius` times the row's mean token norm.
        """
        features = list(micro.batch.features)
        moved = {at: self._shifted(one) for at, one in enumerate(features[: micro.n]) if one is not None}
        for _ in range(self.settings.latent_steps if moved else 0):
            points = {at: tokens.detach().requires_grad_() for at, (tokens, _) in moved.items()}
            outputs = self.policy(self._with(micro.batch, points)).trained(micro.n)
            loss = self.loss(micro, outputs, Meter(0))
            slopes = torch.autograd.grad(loss, list(points.values()))
            for (at, (tokens, limit)), slope in zip(moved.items(), slopes, strict=True):
                step = slope / slope.float().norm(dim=-1, keepdim=True).clamp(min=1e-12).to(slope.dtype)
                moved[at] = tokens + step * (limit / self.settings.latent_steps), limit
        return self._with(micro.batch, {at: tokens.detach() for at, (tokens, _) in moved.items()})

    def _shifted(self, feature: Feature) -> tuple[Tensor, float]:
        """Return features scaled and shifted at random, and the largest further move of a token."""
        tokens = feature.tokens
        limit = self.settings.latent_radius * float(tokens.float().norm(dim=-1).mean())
        low, high = map(math.log, _SCALES)
        draw = torch.rand(2, generator=self._rng)
        shift = torch.randn(tokens.shape[-1], generator=self._rng)
        shift = shift / shift.norm() * draw[1] * limit
        return tokens * float((low + (high - low) * draw[0]).exp()) + shift.to(tokens), limit

    @staticmethod
    def _with(batch: Batch, tokens: dict[int, Tensor]) -> Batch:
        features = (
            replace(one, tokens=tokens[at]) if one is not None and at in tokens else one
            for at, one in enumerate(batch.features)
        )
        return replace(batch, features=tuple(features))
