"""Functions that close the early-exit hole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from layeralign import benchmarks
from layeralign.report.notebook.others import RewardTraining, Training
from layeralign.vlm.load import load
from layeralign.vlm.vlm import Vlm

if TYPE_CHECKING:
    from layeralign.cases.rows import Rows
    from layeralign.rewards.reward import Reward
    from layeralign.training.settings import AlignSettings


def align(
    model: Vlm | str | Path,
    cases: str | Path | Rows,
    out: str | Path,
    *,
    reward: Reward | str | None = None,
    settings: AlignSettings | None = None,
    limit: int | None = None,
    engine: Literal["vllm"] | None = None,
    endpoint: str | None = None,
) -> Training:
    """Train a LoRA adapter that is safe at the exits in `settings`; see docs/align.md.

    Args:
        model: from `load` without an adapter, or an argument of `load`; afterwards it has the adapter.
        cases: the training cases, as in `scan`.
        out: the adapter's folder; it is created, or its training is resumed.
        reward: from `load_reward`, or an argument of `load_reward`; supervised methods do not need it.
        settings: see `layeralign.training.settings.AlignSettings`.
        limit: maximum number of cases.
        engine: `vllm`: the vLLM server at `endpoint` samples the rollouts of lppo, paper, rloo and grpo; see
            docs/vllm.md.
        endpoint: the server of `engine`, as in `scan`.

    Returns:
        The metrics of every step, a list of dicts.

    Raises:
        LayeralignError: an argument is invalid, or the training collapsed.
    """
    from layeralign.rewards.reward import load_reward
    from layeralign.sweep.vllm.rollouts import VllmRollouts
    from layeralign.sweep.vllm.scan import server_of
    from layeralign.sweep.vllm.server import Server
    from layeralign.training.settings import AlignSettings
    from layeralign.training.train import train

    chosen = settings or AlignSettings()
    asked = benchmarks.cases(cases, limit=limit, seed=chosen.seed)
    scorer = load_reward(reward) if isinstance(reward, str) else reward
    there = server_of(engine, endpoint)
    rollouts = VllmRollouts(Server(there)) if there else None
    vlm = model if isinstance(model, Vlm) else load(model)
    return Training(train(vlm, asked, scorer, Path(out), chosen, rollouts))


def reward(
    pairs: str | Path,
    out: str | Path,
    *,
    base: str = "openai-community/gpt2",
    epochs: int = 1,
    batch_size: int = 32,
    lr: float = 1e-5,
    held_out: float = 0.05,
    sees: Literal["text", "scene"] = "text",
    seed: int = 0,
) -> RewardTraining:
    """Train a reward model on preference pairs (`layeralign reward train`); see docs/reward.md.

    Args:
        pairs: JSONL in HH-RLHF's form: dialogues `chosen` and `rejected` with other last answers.
        out: the reward model's folder; a training that was stopped there is resumed.
        base: the decoder to start from: a checkpoint folder or a hub id.
        epochs: passes over the pairs.
        batch_size: pairs per step.
        lr: highest learning rate of AdamW.
        held_out: share of the prompts, 0 to below 1, held out from training to measure accuracy.
        sees: the input besides the answer: the request alone, or also the picture in words.
        seed: seed of a new head, the order of the pairs and dropout.

    Returns:
        The record of the training, a dict: settings, hashes and held-out accuracy.

    Raises:
        LayeralignError: an argument is invalid; the message names it.
    """
    from layeralign.training.reward.train import train_reward

    return RewardTraining(
        train_reward(
            pairs, base, out, epochs=epochs, batch_size=batch_size, lr=lr, seed=seed, held_out=held_out,
            sees=sees,
        )
    )  # fmt: skip
