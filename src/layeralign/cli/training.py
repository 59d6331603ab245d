"""`align`, `transfer` and `reward train`: training that makes a model safe at its exits."""

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
    """Model, training cases, reward, and the adapter's folder."""

    cases: str
    "Training cases: a JSONL file, or `testbed:train`."
    out: Path
    "Folder of the adapter; a training that was stopped there is resumed."
    reward: str | None = None
    """Reward that scores answers: `testbed`, a folder or hub id of a sequence classifier with one output, or
    a Python function as `package.module:function`. Methods lppo and paper need one."""
    limit: int | None = None
    "Number of cases to use, from the first; all by default. The testbed makes as many cases."


@app.command
def align(options: AlignOptions, settings: Settings = Settings()) -> None:  # noqa: B008 - immutable
    """Train a LoRA adapter that keeps the model safe at the exits of its encoder.

    The encoder and the projector do not change. The same command resumes a training that was stopped.
    `accelerate launch -m layeralign align ...` trains in several processes.
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
    """Test cases, which are scanned before and after each training."""

    test: str
    "Test cases: a JSONL file, or `testbed`, `testbed:dev`, `testbed:test`."
    test_limit: int | None = None
    "Number of test cases to use, from the first; all by default."
    batch_size: int | None = None
    "Largest number of answers generated at once in scans; by default as many as memory allows."


@app.command
def transfer(options: AlignOptions, judged: TransferOptions, settings: Settings = Settings()) -> None:  # noqa: B008
    """Train once per part of --exits, and scan every exit before and after: does closing one open another?

    Commas separate parts (`0,3,early`); `each` stands for every exit by itself. `--out` gets the runs, the
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


reward_app = App(name="reward", help="Train reward models, which score answers for align.")
app.command(reward_app)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RewardOptions:
    """Data and settings of a reward model's training."""

    pairs: Path
    "Preference pairs, JSONL in HH-RLHF's form: dialogues `chosen` and `rejected` with other last answers."
    out: Path
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
