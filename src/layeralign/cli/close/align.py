"""`align`: training that makes a model safe at its exits."""

from __future__ import annotations

from dataclasses import dataclass

from cyclopts import Parameter

from layeralign._util.text import printable
from layeralign.cli.app import note
from layeralign.cli.options import Device, Dtype, EngineOptions, ModelOptions, Out  # noqa: F401 - see ModelOptions
from layeralign.training.settings import AlignSettings


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AlignOptions(ModelOptions):
    """Model, training cases, reward, and the adapter's folder."""

    cases: str
    "Training cases: a JSONL or CSV file, `testbed:train` or `natural:train`."
    out: Out
    "Folder to write; a training that was stopped there is resumed."
    reward: str | None = None
    """Reward that scores answers: `testbed`, a folder or hub id of a sequence classifier with one output, or
    a Python function as `package.module:function`. Methods lppo, paper, rloo
    and grpo need one."""
    limit: int | None = None
    "Number of cases to use, from the first; all by default. For a testbed, the number of cases to make."


def align(
    options: AlignOptions,
    settings: AlignSettings = AlignSettings(),  # noqa: B008 - immutable
    by: EngineOptions = EngineOptions(),  # noqa: B008
) -> None:
    """Train a LoRA adapter that keeps the model safe at the exits of its encoder.

    The encoder does not change, and the projector only by `--method repair`. The same command resumes a
    training that was stopped. `accelerate launch -m layeralign align ...` trains in several processes.
    With --engine a vLLM server samples the rollouts. Brackets such as [TRL] name the source of a default.
    """
    settings.check_reward(options.reward)
    if there := by.server() if by.engine or by.endpoint else None:
        from layeralign.sweep.vllm.server import Server

        Server(there)  # an error comes before the model is loaded
    from layeralign import benchmarks
    from layeralign.report.terminal.cases import picture_remarks

    asked = benchmarks.cases(options.cases, limit=options.limit, seed=settings.seed)
    vlm = options.load()
    note(picture_remarks(asked, settings.background))
    from layeralign.api import align as run_align

    run_align(
        vlm,
        asked,
        options.out,
        reward=options.reward,
        settings=settings,
        engine=by.engine,
        endpoint=by.endpoint,
    )
    print(
        printable(
            f"adapter: {options.out} (layeralign scan --model {options.model} --adapter {options.out} ...)"
        )
    )
