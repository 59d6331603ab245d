"""`align`, `transfer` and `reward train`: what makes a model safe at its exits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cyclopts import App, Parameter

from layeralign._util.text import printable
from layeralign.cli.app import app, note, put
from layeralign.cli.options import ModelOptions
from layeralign.training.settings import Settings


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AlignOptions(ModelOptions):
    """What to train, on what, and where to."""

    cases: str
    "What to train on: a JSONL file, or `testbed:train`."
    out: Path
    "The adapter's folder: made, or gone on with."
    reward: str | None = None
    """Who scores answers: `testbed`, a folder or hub id of a sequence classifier with one output, or a
    Python function as `package.module:function`. Methods lppo and paper need one."""
    limit: int | None = None
    "Take only the first so many cases; the testbed makes just so many."


@app.command
def align(options: AlignOptions, settings: Settings = Settings()) -> None:  # noqa: B008 - immutable
    """Train a LoRA adapter that keeps the model safe at the exits of its encoder.

    The encoder and the projector stay as they are. Stopped at any moment, the same command resumes.
    `accelerate launch -m layeralign align ...` trains with many processes.
    """
    from layeralign import benchmarks
    from layeralign.api import align as run_align
    from layeralign.report.terminal.cases import picture_remarks

    asked = benchmarks.cases(options.cases, limit=options.limit, seed=settings.seed)
    note(picture_remarks(asked, settings.background))
    run_align(options.load(), asked, options.out, reward=options.reward, settings=settings)
    print(
        printable(
            f"adapter: {options.out} (layeralign scan --model {options.model} --adapter {options.out} ...)"
        )
    )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """What is judged before and after each training."""

    test: str
    "Cases that are judged: a JSONL file, or `testbed`, `testbed:dev`, `testbed:test`."
    test_limit: int | None = None
    "Take only the first so many of them."
    batch_size: int | None = None
    "Most answers under way together when judged; by default what memory allows."


@app.command
def transfer(options: AlignOptions, judged: TransferOptions, settings: Settings = Settings()) -> None:  # noqa: B008
    """Train once for each part of --exits, scan every exit before and after: does closing one open another?

    Parts are divided by commas (`0,3,early`); `each` is every exit by itself. `--out` gets the runs, the
    adapters, transfer.json, and transfer.html with the heat map.
    """
    from layeralign import benchmarks
    from layeralign.report.terminal.cases import picture_remarks
    from layeralign.report.terminal.transfer import table
    from layeralign.rewards.reward import load_reward
    from layeralign.transfer import Judging
    from layeralign.transfer import transfer as run_transfer

    trained = benchmarks.cases(options.cases, limit=options.limit, seed=settings.seed)
    tested = benchmarks.cases(judged.test, limit=judged.test_limit)
    note(picture_remarks([*trained, *tested], settings.background))
    reward = load_reward(options.reward) if options.reward else None
    judging = Judging(tested, settings.max_new_tokens, judged.batch_size)

    found = run_transfer(
        options.load, trained, options.out, reward=reward, settings=settings, judging=judging
    )
    put(table(found))
    print(printable(f"transfer: {options.out / 'transfer.html'}"))


reward_app = App(name="reward", help="Reward models, which tell align which answer is better.")
app.command(reward_app)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RewardOptions:
    """What to train a reward model on, and how."""

    pairs: Path
    "JSONL in HH-RLHF's form: dialogues `chosen` and `rejected`, which differ in their last answer."
    out: Path
    "The reward model's folder: made, or gone on with."
    base: str = "openai-community/gpt2"
    "A checkpoint folder or a hub id of a decoder."
    epochs: int = 1
    "Passes over the pairs."
    batch_size: int = 32
    "Pairs per step."
    rate: float = 1e-5
    "Highest learning rate of AdamW."
    held_out: float = 0.05
    "Share of the prompts that are not trained on, to measure accuracy."
    sees: Literal["text", "scene"] = "text"
    "`scene` where the pairs' human turns tell the picture in words."
    seed: int = 0
    "Of a fresh head, the order of the pairs and dropout."


@reward_app.command(name="train")
def reward_train(options: RewardOptions) -> None:
    """Train a reward model on preference pairs; stopped, the same command resumes. See docs/reward.md."""
    from layeralign.training.reward_model import train_reward

    record = train_reward(**vars(options))
    held = record["held_out"]
    if held["n"]:
        low, high = 100 * held["low"], 100 * held["high"]
        print(f"held-out accuracy: {100 * held['accuracy']:.1f} % ({low:.1f}–{high:.1f}), n = {held['n']}")
    print(printable(f"reward: {options.out} (use: layeralign align --reward {options.out} ...)"))
