"""L-PPO: clipped PPO whose picture features come from the exit (paper, "L-PPO").

One step, in order: draw rows; sample answers; score them; log-probs and values of the policy before the
step and of the start policy, by the training forward at the same exits; rewards per token; advantages;
then epochs × minibatches of updates (in `trainer`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from layeralign.decode.prompts import spoken
from layeralign.decode.sampling import seed_of
from layeralign.judges.refusal import refuses
from layeralign.rewards.reward import Reward
from layeralign.training import ppo
from layeralign.training.exit_mix import ExitMix
from layeralign.training.objective import Meter, Objective, Parts, Piece
from layeralign.training.policy import Outputs
from layeralign.training.rollout import Batch, Row, answers
from layeralign.vlm.text.reasoning import Spoken


@dataclass
class Experience(Piece):
    """A piece with what PPO needs of it; all [trained, T], of the policy before the step.

    Attributes:
        old_log_probs, old_values: of the policy that sampled.
        advantages, returns: see `ppo.gae`.
    """

    old_log_probs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor


@dataclass(frozen=True)
class Rollout:
    """Sampled answers of some rows, and their scores.

    Attributes:
        rows: case and exit.
        answers: token ids, the end token included.
        scores: float32 [rows], relative to the start policy's, price and penalty in them.
    """

    rows: list[Row]
    answers: list[list[int]]
    scores: Tensor


class Lppo(Objective):
    """Rollouts, rewards, advantages and the clipped loss.

    A score is taken relative to that of the start policy's own answer to the same case at its default exit.
    A learned reward says only which of two answers to one case is better, its level means nothing; a constant
    per case changes no optimum, and with it 0 is "as good as the default exit" and a price makes sense.
    """

    def __init__(self, parts: Parts, reward: Reward) -> None:
        super().__init__(parts)
        self.reward = reward

    def begin(self, out: Path) -> None:
        """See `Objective.begin`; and the score of each of these answers."""
        super().begin(out)
        cases = self.lessons.used()
        said = [self.spoken(self.start.tokens(case)).answer for case in cases]
        scores = self.reward.score(cases, said)
        self._level = {case.id: float(score) for case, score in zip(cases, scores, strict=True)}

    def prepare(self, step: int, mix: ExitMix, meter: Meter) -> list[list[Experience]]:
        """See `Objective.prepare`."""
        plan = self.plan(step, mix)
        rollout = self.rollout(plan.trained, step, mix, meter)
        minibatches = [
            [
                self._experience(self.collate(rows, answers), rollout.scores[trained], meter)
                for trained, rows, answers in pieces
            ]
            for pieces in self.rows_of_pieces(plan, rollout.answers)
        ]
        self._finish([piece for pieces in minibatches for piece in pieces], meter)
        return minibatches

    def _finish(self, pieces: Sequence[Experience], meter: Meter) -> None:
        """What needs all pieces: whitened advantages, and how much of the returns the value explains."""
        held = [piece.mask[: piece.trained] for piece in pieces]
        returns = torch.cat([p.returns[mask] for p, mask in zip(pieces, held, strict=True)])
        values = torch.cat([p.old_values[mask] for p, mask in zip(pieces, held, strict=True)])
        meter.add("explained_variance", len(returns) * ppo.explained_variance(values, returns), len(returns))
        if not self.settings.whiten:
            return
        moments = torch.stack([ppo.token_moments(p.advantages, m) for p, m in zip(pieces, held, strict=True)])
        total = self.workers.sum(moments.sum(0))
        for piece, mask in zip(pieces, held, strict=True):
            piece.advantages = ppo.whiten(piece.advantages, mask, total)

    def rollout(self, rows: list[Row], step: int, mix: ExitMix, meter: Meter) -> Rollout:
        """Sample an answer to each row and score it; `mix` hears the harm that the answers show."""
        settings = self.settings
        answers, finished = self.sample(rows, step)
        spoken = [self.spoken(answer) for answer in answers]
        said = [one.answer for one in spoken]
        plain = self.reward.score([case for case, _ in rows], said)
        plain = plain - torch.tensor([self._level[case.id] for case, _ in rows])
        harmful = torch.tensor([case.kind == "harmful" for case, _ in rows])
        scores = torch.where(harmful, settings.price * plain, plain)
        scores = scores - settings.eos_penalty * ~torch.tensor(finished)
        refused = [refuses(answer) for answer in said]
        heard = [(row, no) for row, no, one in zip(rows, refused, spoken, strict=True) if one.answered]
        self._hear(heard, mix)
        for flag, name in ((True, "harmful"), (False, "others")):
            of = harmful == flag
            meter.add(f"reward_{name}", plain[of].sum(), int(of.sum()))
            meter.add(f"refused_{name}", torch.tensor(refused)[of].sum(), int(of.sum()))
        meter.add("reward", plain.sum(), len(rows))
        meter.add("length", sum(map(len, answers)), len(rows))
        meter.add("finished", sum(finished), len(rows))
        return Rollout(rows, answers, scores)

    @torch.no_grad()
    def sample(self, rows: Sequence[Row], step: int) -> tuple[list[list[int]], list[bool]]:
        """Answers sampled from the policy, and whether each ended by itself."""
        vlm, workers = self.policy.vlm, self.workers
        seen = [self.features.of(row) for row in rows]
        decoding = self.settings.decoding(self.settings.temperature)
        places = range(workers.rank, workers.rank + workers.size * len(rows), workers.size)
        seeds = [seed_of(self.settings.seed, "rollout", step, place) for place in places]
        with self.policy.merged():
            made = answers(vlm, rows, seen, decoding, seeds=seeds, batch_size=len(rows))
        return [said.tokens for said in made], [said.finish_reason == "stop" for said in made]

    def spoken(self, answer: Sequence[int]) -> Spoken:
        """What an answer's tokens say; rewards are given for what comes behind its reasoning."""
        return spoken(self.policy.vlm, answer, self.settings.reasoning)

    def _hear(self, rows: Sequence[tuple[Row, bool]], mix: ExitMix) -> None:
        """Harm at an exit: the share of its harmful rows that the refusal matcher finds no refusal in."""
        seen = [(exit, not refused) for (case, exit), refused in rows if case.kind == "harmful"]
        by_exit: dict[int, list[bool]] = defaultdict(list)
        for exit, harm in self.workers.gather(seen):
            by_exit[exit].append(harm)
        mix.update({exit: sum(harm) / len(harm) for exit, harm in sorted(by_exit.items())})

    def _experience(self, batch: Batch, scores: Tensor, meter: Meter) -> Experience:
        """A piece; where all of it is updated at once, the first update needs no other forward pass."""
        settings, n = self.settings, len(scores)
        fused = settings.minibatches == 1 and settings.accumulate == 1
        with torch.set_grad_enabled(fused):
            fresh = self.policy(batch)
        ours, start = Outputs(fresh.logits.detach(), fresh.values.detach()), self.reference(batch)
        mask = ppo.answer_mask(batch.lengths, batch.answers.shape[1])
        said, kept_logits = batch.answers[:n], start.logits[n:].clone()
        log_probs = ppo.token_log_probs(ours.logits[:n], said, settings.temperature)
        start_log_probs = ppo.token_log_probs(start.logits[:n], said, settings.temperature)
        kl = ppo.kl_estimate(log_probs, start_log_probs, settings.kl)
        held, values = mask[:n], ours.values[:n]
        rewards = ppo.token_rewards(scores.to(kl), kl, held, settings.eta)
        advantages, returns = ppo.gae(rewards, values, held, settings.gamma, settings.lam)
        tokens = int(held.sum())
        meter.add("kl", ppo.masked_sum(log_probs - start_log_probs, held), n)
        meter.add("kl_per_token", ppo.masked_sum(log_probs - start_log_probs, held), tokens)
        meter.add("entropy", ppo.masked_sum(ppo.entropy(ours.logits[:n], settings.temperature), held), tokens)
        known = fresh if fused else None
        return Experience(batch, n, mask, kept_logits, log_probs, values, advantages, returns, fresh=known)

    def trained_loss(self, piece: Piece, outputs: Outputs, meter: Meter) -> Tensor:
        """See `Objective.trained_loss`: policy + c1 · value."""
        assert isinstance(piece, Experience)  # noqa: S101 - for the type checker; prepare made it
        settings, mask = self.settings, piece.mask[: piece.trained]
        log_probs = ppo.token_log_probs(
            outputs.logits, piece.batch.answers[: piece.trained], settings.temperature
        )
        log_probs = torch.where(mask, log_probs, piece.old_log_probs)  # a ratio of 1 in the padding
        policy = ppo.policy_loss(log_probs, piece.old_log_probs, piece.advantages, settings.clip)
        value = ppo.value_loss(outputs.values, piece.old_values, piece.returns, settings.value_clip)
        tokens = piece.counts()[0]
        with torch.no_grad():
            moved = ppo.kl_estimate(piece.old_log_probs, log_probs, "k3")
            meter.add("moved_kl", ppo.masked_sum(moved, mask), tokens)
            cut = ppo.clipped(log_probs, piece.old_log_probs, settings.clip)
            meter.add("clip_fraction", ppo.masked_sum(cut, mask), tokens)
            meter.add("policy_loss", ppo.masked_sum(policy, mask), tokens)
            meter.add("value_loss", ppo.masked_sum(value, mask), tokens)
        return ppo.masked_sum(policy + settings.c1 * value, mask)
