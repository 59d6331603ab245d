"""The training loop: do a step, log it, save; a training can be stopped and resumed at any time."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from layeralign.cases import background
from layeralign.cases.case import Case
from layeralign.cases.pictures import on_background
from layeralign.decode import checks
from layeralign.errors import LayeralignError
from layeralign.exits import Exits
from layeralign.rewards.reward import Reward
from layeralign.training.algorithm import Algorithm
from layeralign.training.baselines.critic_free import CriticFree
from layeralign.training.baselines.imitation import Imitation
from layeralign.training.baselines.latent import Latent
from layeralign.training.baselines.preference import Dpo
from layeralign.training.baselines.repair import Repair
from layeralign.training.baselines.steering import Steering
from layeralign.training.data.batches import Batches
from layeralign.training.data.exit_mix import ExitMix
from layeralign.training.data.features import Features
from layeralign.training.lppo import Lppo
from layeralign.training.parallel import Workers
from layeralign.training.policy import Policy
from layeralign.training.reference import ReferenceAnswers
from layeralign.training.rollouts import Rollouts
from layeralign.training.settings import AlignSettings
from layeralign.training.state import checkpoint, health, log, record
from layeralign.training.state.checkpoint import State
from layeralign.vlm.checkpoint import Adapter
from layeralign.vlm.vlm import Vlm

SAVE_EVERY, SAVE_SECONDS = 10, 120.0
"""Steps and seconds between checkpoints; the earlier limit applies."""


def train(
    vlm: Vlm,
    cases: Sequence[Case],
    reward: Reward | None,
    out: Path,
    given: AlignSettings,
    rollouts: Rollouts | None = None,
) -> list[dict[str, Any]]:
    """Train an adapter of `vlm`, or resume the training in `out`; save the adapter there in PEFT's form.

    Args:
        vlm: a freshly loaded model without an adapter; afterwards it has the trained adapter.
        cases: the training cases.
        reward: scores the answers; None for the methods that need no reward.
        out: the folder of adapter, checkpoint, log and record.
        given: see `AlignSettings`.
        rollouts: samples the answers in place of this process.

    Returns:
        The metrics of every step.

    Raises:
        LayeralignError: an argument does not fit, `out` has another training, or the training collapsed.
            After a collapse, `out` has the last good adapter.
    """
    if vlm.adapter is not None:
        raise LayeralignError(f"model {vlm.name}: has an adapter already; load the model again, without one")
    settings, workers = record.dated(out, vlm, given.resolved()), Workers()
    if rollouts and (workers.size > 1 or not settings.rolls_out):
        why = "works in one process" if workers.size > 1 else f"method {settings.method} makes no rollouts"
        raise LayeralignError(f"engine: {why}; remove --engine")
    cases = on_background(cases, background.parse(settings.background))
    mix = check(vlm.exits, settings, reward)
    batches = Batches(cases, settings, vlm.exits.default, workers.size)
    for note in checks.check(vlm, cases, settings.decoding()):
        if workers.main:
            print(f"note: {note}", file=sys.stderr)
    made = record.record(
        vlm, cases, reward, settings, workers.size, engine=rollouts.record() if rollouts else None
    )
    with ExitStack() as alone:
        workers.first(lambda: alone.enter_context(record.begun(out, made, cases)))
        return _trained(vlm, cases, reward, out, settings, mix, batches, workers, rollouts or Rollouts())


def _trained(
    vlm: Vlm, cases: Sequence[Case], reward: Reward | None, out: Path, settings: AlignSettings, mix: ExitMix,
    batches: Batches, workers: Workers, rollouts: Rollouts,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train in a folder that only this training writes to; see `train`."""
    vlm.adapter = Adapter(str(out), out.resolve())  # the model differs from the loaded one from here on
    policy = Policy(
        vlm, settings.rank, settings.seed, gradient_checkpointing=settings.gradient_checkpointing,
        part="projector" if settings.method == "repair" else "language",
    )  # fmt: skip
    features = Features(vlm, cases, [*mix.exits, vlm.exits.default])
    reference = ReferenceAnswers(policy, features, settings.decoding())
    parts = (policy, batches, features, reference, mix, settings, workers)
    if reward is not None and settings.rolls_out:
        kind = CriticFree if settings.method in ("rloo", "grpo") else Lppo
        return _run(kind(*parts, reward, rollouts), out)
    others: dict[str, type[Algorithm[Any]]] = {
        "dpo": Dpo,
        "latent": Latent,
        "repair": Repair,
        "steer": Steering,
    }
    return _run(others.get(settings.method, Imitation)(*parts), out)


def check(known: Exits, settings: AlignSettings, reward: Reward | None) -> ExitMix:
    """Return the mix of the settings.

    Raises:
        LayeralignError: the settings do not fit each other or the model's exits, or the reward is missing.
    """
    mix = ExitMix.parse(known, settings.exits, settings.mix)
    if mix.adaptive and not settings.rolls_out:
        raise LayeralignError(
            f"mix worst: follows the harm in rollouts, and method {settings.method} makes no rollouts"
        )
    settings.check_reward(reward)
    return mix


def _run(algorithm: Algorithm[Any], out: Path) -> list[dict[str, Any]]:
    """Do the remaining steps and save the adapter; return the metrics of every step."""
    policy, settings, workers = algorithm.policy, algorithm.settings, algorithm.workers
    state = State(algorithm.parameters, algorithm.optimizer, algorithm.mix)
    file = out / checkpoint.FILE
    done, saved = checkpoint.restore(file, state), time.monotonic()
    history = log.read(out, done)
    if done < settings.steps:
        algorithm.begin(out)
        if done == 0 and workers.main:
            checkpoint.save(file, state, 0)
        with log.Log(out, history, settings.steps, writes=workers.main) as writer:
            for step in range(done, settings.steps):
                writer.add(algorithm.step(step))
                if reason := health.stop_reason(history):
                    _stop(algorithm, state, out, f"training stopped at step {step}: {reason}")
                late = time.monotonic() - saved > SAVE_SECONDS
                due = ((step + 1) % SAVE_EVERY == 0 or late) and health.problem(history) is None
                if workers.main and (due or step + 1 == settings.steps):
                    writer.sync()
                    checkpoint.save(file, state, step + 1)
                    saved = time.monotonic()
    if workers.main:
        policy.save(out)
    workers.wait()
    return history


def _stop(algorithm: Algorithm[Any], state: State, out: Path, why: str) -> None:
    """Save the adapter of the last checkpoint, and raise an error."""
    last = checkpoint.restore(out / checkpoint.FILE, state)
    if algorithm.workers.main:
        algorithm.policy.save(out)
    raise LayeralignError(
        f"{why}; {out} holds the adapter after {last} steps, from the last good checkpoint; "
        "train again with a lower --lr or a higher --kl-coef"
    )
