"""L-PPO: clipped PPO whose visual input comes from the exit layer (paper, "L-PPO")."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from layeralign.decode.prompts import spoken
from layeralign.decode.sampling import seed_of
from layeralign.judges.refusal import refuses
from layeralign.rewards.reward import Reward
from layeralign.training import ppo
from layeralign.training.algorithm import Algorithm, Meter, Microbatch
from layeralign.training.data.features import Row
from layeralign.training.policy import Outputs
from layeralign.training.reference import CHUNK
from layeralign.training.rollouts import Rollouts
from layeralign.vlm.text.reasoning import Spoken


@dataclass
class Experience(Microbatch):
    """A microbatch with the PPO data of its trained rows, all float32 [n, T].

    Attributes:
        old_log_probs, old_values: of the policy that sampled the answers.
        reference_log_probs: of the reference policy, on the same answers at the same exits.
        rewards: per token, see `ppo.token_rewards`.
        advantages, returns: see `ppo.gae`.
    """

    old_log_probs: Tensor = field(init=False)
    old_values: Tensor = field(init=False)
    reference_log_probs: Tensor = field(init=False)
    rewards: Tensor = field(init=False)
    advantages: Tensor = field(init=False)
    returns: Tensor = field(init=False)


@dataclass(eq=False)
class Lppo(Algorithm[Experience]):
    """L-PPO. Scores are relative to the reference policy's answer to the same case at its default exit.

    A learned reward only ranks two answers to one case; its level has no meaning. Subtracting a constant per
    case changes no optimum. A score of 0 then means "as good as the reference answer at the default exit", so
    the harm weight has a meaning.
    """

    reward: Reward
    rollouts: Rollouts

    def begin(self, out: Path) -> None:
        """Check the rollouts' engine, generate the reference answers, and score them."""
        self.rollouts.begin(self.policy, self.batches.used(CHUNK), self.settings.decoding(), out)
        super().begin(out)
        self._reference_scores: dict[str, float] = {}
        for cases in self.reference.chunks:  # a chunk at a time: a score may depend on what is beside it
            texts = [self.text(self.reference.tokens(case)).answer for case in cases]
            scores = self.reward.score(cases, texts)
            self._reference_scores |= {
                case.id: float(score) for case, score in zip(cases, scores, strict=True)
            }

    def step(self, number: int) -> dict[str, Any]:
        """Do one L-PPO step; return its metrics."""
        settings, meter = self.settings, Meter(number)

        # 1. Draw rows: cases at drawn exits to train on, and retention rows at the default exit.
        rows = self.draw(meter)

        # 2. Sample an answer to each trained row from the current policy, at the row's exit.
        answers, finished = self.sample(rows.trained, number)

        # 3. Score each answer, relative to the reference policy's answer to the same case.
        scores = self.score(rows.trained, answers, finished, meter)

        minibatches = self.microbatches(Experience, rows, answers)
        experience = [micro for minibatch in minibatches for micro in minibatch]
        for micro in experience:
            # 4. Log-probs and values of the policy and of the reference on these answers, at the same exits.
            self.evaluate(micro, meter)

            # 5. Reward per token: -kl_coef · KL(policy ‖ reference), plus the score at the last token.
            kl = ppo.kl_estimate(micro.old_log_probs, micro.reference_log_probs, settings.kl_estimator)
            score = scores[micro.indices].to(kl)
            micro.rewards = ppo.token_rewards(score, kl, micro.mask, settings.kl_coef)

        # 6. Advantages and returns by generalised advantage estimation, then whitened over the step.
        self.add_advantages(experience)
        if settings.whiten:
            self.whiten(experience)

        # 7. Update in epochs × minibatches: clipped loss (see `loss`), plus the KL on the retention rows.
        self.update(minibatches, meter)

        # 8. Log.
        self.log_values(experience, meter)
        return meter.metrics(self.workers)

    @torch.no_grad()
    def sample(self, rows: Sequence[Row], step: int) -> tuple[list[list[int]], list[bool]]:
        """Sample an answer to each row from the policy; return token ids and whether it has an end token."""
        workers = self.workers
        features = [self.features.of(row) for row in rows]
        decoding = self.settings.decoding(self.settings.temperature)
        places = range(workers.rank, workers.rank + workers.size * len(rows), workers.size)
        seeds = [seed_of(self.settings.seed, "rollout", step, place) for place in places]
        made = self.rollouts.sample(self.policy, rows, features, decoding, seeds)
        return [one.tokens for one in made], [one.finish_reason == "stop" for one in made]

    def score(
        self, rows: Sequence[Row], answers: Sequence[Sequence[int]], finished: Sequence[bool], meter: Meter
    ) -> Tensor:
        """Return the scores, float32 [rows], with harm weight and penalty; update the mix.

        The mix is updated with the harm measured in these answers.
        """
        settings, texts = self.settings, [self.text(answer) for answer in answers]
        rewards = self.reward.score([case for case, _ in rows], [text.answer for text in texts])
        rewards = rewards - torch.tensor([self._reference_scores[case.id] for case, _ in rows])
        harmful = torch.tensor([case.kind == "harmful" for case, _ in rows])
        scores = torch.where(harmful, settings.harm_weight * rewards, rewards)
        scores = scores - settings.eos_penalty * ~torch.tensor(finished)

        refused = [refuses(text.answer) for text in texts]
        self._follow_harm(
            [(row, no) for row, no, text in zip(rows, refused, texts, strict=True) if text.answered]
        )
        for flag, name in ((True, "harmful"), (False, "others")):
            chosen = harmful == flag
            meter.add(f"reward_{name}", rewards[chosen].sum(), int(chosen.sum()))
            meter.add(f"refused_{name}", torch.tensor(refused)[chosen].sum(), int(chosen.sum()))
        meter.add("reward", rewards.sum(), len(rows))
        meter.add("length", sum(map(len, answers)), len(rows))
        meter.add("finished", sum(finished), len(rows))
        return scores

    def text(self, tokens: Sequence[int]) -> Spoken:
        """Return the text of an answer; rewards score the part after its reasoning."""
        return spoken(self.policy.vlm, tokens, self.settings.reasoning)

    def _follow_harm(self, rows: Sequence[tuple[Row, bool]]) -> None:
        """Update the mix by each exit's harm: the share of its harmful rows without a refusal.

        Args:
            rows: rows with a flag: whether the refusal matcher finds a refusal in the answer.
        """
        harms = [(exit, not refused) for (case, exit), refused in rows if case.kind == "harmful"]
        by_exit: dict[int, list[bool]] = defaultdict(list)
        for exit, harm in self.workers.gather(harms):
            by_exit[exit].append(harm)
        self.mix.update({exit: sum(harm) / len(harm) for exit, harm in sorted(by_exit.items())})

    def evaluate(self, micro: Experience, meter: Meter) -> None:
        """Set log-probs and values of the policy, log-probs of the reference, and its retention logits.

        If a step has one minibatch in one part, its first update uses this forward pass, with its graph.
        """
        settings, n, count = self.settings, micro.n, micro.counts[0]
        reuse = settings.minibatches == 1 and settings.accumulate == 1
        with torch.set_grad_enabled(reuse):
            outputs = self.policy(micro.batch)
        micro.outputs = outputs if reuse else None
        reference, logits = self.reference_outputs(micro.batch).logits, outputs.logits.detach()[:n]
        micro.old_values = outputs.values.detach()[:n]
        micro.old_log_probs = ppo.token_log_probs(logits, micro.tokens, settings.temperature)
        micro.reference_log_probs = ppo.token_log_probs(reference[:n], micro.tokens, settings.temperature)
        micro.reference_logits = reference[n:].clone()
        kl = ppo.masked_sum(micro.old_log_probs - micro.reference_log_probs, micro.mask)
        meter.add("kl", kl, n)
        meter.add("kl_per_token", kl, count)
        meter.add("entropy", ppo.masked_sum(ppo.entropy(logits, settings.temperature), micro.mask), count)

    def add_advantages(self, experience: Sequence[Experience]) -> None:
        """Set advantages and returns by generalised advantage estimation."""
        for micro in experience:
            micro.advantages, micro.returns = ppo.gae(
                micro.rewards, micro.old_values, micro.mask, self.settings.gamma, self.settings.lam
            )

    def log_values(self, experience: Sequence[Experience], meter: Meter) -> None:
        """Log how well the value head predicts the returns."""
        returns = torch.cat([micro.returns[micro.mask] for micro in experience])
        values = torch.cat([micro.old_values[micro.mask] for micro in experience])
        meter.add("explained_variance", len(returns) * ppo.explained_variance(values, returns), len(returns))

    def whiten(self, experience: Sequence[Experience]) -> None:
        """Normalise the advantages over the step's tokens of all processes."""
        moments = torch.stack([ppo.token_moments(micro.advantages, micro.mask) for micro in experience])
        total = self.workers.sum(moments.sum(0))
        for micro in experience:
            micro.advantages = ppo.whiten(micro.advantages, micro.mask, total)

    def loss(self, micro: Experience, outputs: Outputs, meter: Meter) -> Tensor:
        """Return the sum of PPO's clipped policy loss + value_coef · value loss."""
        settings, mask, old = self.settings, micro.mask, micro.old_log_probs
        log_probs = ppo.token_log_probs(outputs.logits, micro.tokens, settings.temperature)
        log_probs = torch.where(mask, log_probs, old)  # a ratio of 1 in the padding
        policy = ppo.policy_loss(log_probs, old, micro.advantages, settings.clip)
        value = self.value_loss(micro, outputs)
        with torch.no_grad():
            for name, values in (
                ("approx_kl", ppo.kl_estimate(old, log_probs, "k3")),
                ("clip_fraction", ppo.clipped(log_probs, old, settings.clip)),
                ("policy_loss", policy),
                ("value_loss", value),
            ):
                meter.add(name, ppo.masked_sum(values, mask), micro.counts[0])
        return ppo.masked_sum(policy + settings.value_coef * value, mask)

    def value_loss(self, micro: Experience, outputs: Outputs) -> Tensor:
        """Return the value loss per token, float32 [n, T]."""
        return ppo.value_loss(outputs.values, micro.old_values, micro.returns, self.settings.value_clip)
