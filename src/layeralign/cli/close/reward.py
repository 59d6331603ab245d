"""`reward train`: a reward model from preference pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cyclopts import App, Parameter

from layeralign._util.text import printable
from layeralign.cli.options import Out

reward_app = App(name="reward", help="Train reward models, which score answers for align.")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RewardOptions:
    """Data and settings of a reward model's training."""

    pairs: Path
    "Preference pairs, JSONL in HH-RLHF's form: dialogues `chosen` and `rejected` with other last answers."
    out: Out
    "Folder of the reward model; a training that was stopped there is resumed."
    base: str = "openai-community/gpt2"
    "Decoder to start from: a checkpoint folder or a hub id."
    epochs: int = 1
    "Passes over the pairs."
    batch_size: int = 32
    "Pairs per step."
    lr: float = 1e-5
    """Highest learning rate of AdamW: linear warm-up over a twentieth of the steps, then linear to zero."""
    held_out: float = 0.05
    "Share of the prompts, 0 to below 1, held out from training to measure accuracy."
    sees: Literal["text", "scene"] = "text"
    "Input besides the answer: text, the request alone; or scene, if human turns also describe the picture."
    seed: int = 0
    "Seed of a new head, the order of the pairs and dropout."


@reward_app.command(name="train")
def reward_train(options: RewardOptions) -> None:
    """Train a reward model on preference pairs; the same command resumes it. See docs/reward.md."""
    from layeralign.training.reward.train import train_reward

    record = train_reward(**vars(options))
    found = record["held_out"]
    if found["n"]:
        low, high = 100 * found["low"], 100 * found["high"]
        print(f"held-out accuracy: {100 * found['accuracy']:.1f} % [{low:.1f}, {high:.1f}], n = {found['n']}")
    print(printable(f"reward: {options.out} (use: layeralign align --reward {options.out} ...)"))
