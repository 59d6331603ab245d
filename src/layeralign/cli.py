"""The command line: one thin command per verb. Exit codes: 0 fine, 1 bad input, 130 stopped."""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Dict
from rich.console import Console
from rich.table import Table

from layeralign import __version__
from layeralign.errors import LayeralignError
from layeralign.text import printable
from layeralign.training.settings import FLAGS, FRACTIONS, Settings

if TYPE_CHECKING:
    from layeralign.api import Scan
    from layeralign.vlm.vlm import Vlm

_FRACTIONS = {"temperature", "top_p", "held_out", *FRACTIONS}
"""Flags that may have a fraction."""

app = App(
    name="layeralign",
    help="Find, measure and close the early-exit hole in vision-language models.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # main tells that the same command goes on
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model, and how it is loaded."""

    model: str
    "A checkpoint folder, a hub id, or `testbed`."
    revision: str | None = None
    "Branch, tag or commit of a hub id."
    variant: str | None = None
    "How the family reads an exit, where it has several ways; see docs/families.md."
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    "Number format of the weights."
    device_map: str | None = None
    "A torch device, or auto, balanced or sequential; by default the GPU, if there is one."

    def load(self, adapter: Path | None = None, quantize: str | None = None) -> Vlm:
        """Load it."""
        from layeralign.api import load

        return load(
            self.model,
            adapter=adapter,
            revision=self.revision,
            variant=self.variant,
            dtype=self.dtype,
            device_map=self.device_map,
            quantize=quantize,
        )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ScanOptions(ModelOptions):
    """Every field is a flag, and a key of the file that --config names."""

    cases: str
    "A JSONL file; `testbed`, `testbed:train`, `testbed:dev`, `testbed:test`; NAME:FOLDER (layeralign cases)."
    out: Path
    "The run's folder: made, resumed, or added to."
    exits: Annotated[str, Parameter(allow_leading_hyphen=True)] = "all"
    "all, default, early, middle, late, embedding, numbers and ranges, by commas: `early,18,20-24`."
    max_new_tokens: int = 128
    "Longest answer, in tokens."
    temperature: float = 0.0
    "0 is greedy; above, answers are sampled."
    top_p: float = 1.0
    "Share of the probability that sampling draws from."
    limit: int | None = None
    "Take only the first so many cases; the testbed makes just so many."
    seed: int = 0
    "Of sampling, and of benchmarks that are drawn."
    adapter: Path | None = None
    "Folder of a LoRA adapter, as align leaves it, to put on the model."
    quantize: Literal["4bit", "8bit"] | None = None
    "Squeeze the language model's weights with bitsandbytes; wants CUDA."
    batch_size: int = 32
    "Rows (case × exit) that are answered together."


@app.command
def scan(options: ScanOptions) -> None:
    """Put every case to a model at every exit of its image encoder, and sum up.

    `--config FILE` names a YAML file whose keys are these flags (`max_new_tokens: 64`); what the
    command line says goes before it. `--debug` shows the traceback of an error.
    """
    from layeralign.api import scan as run_scan
    from layeralign.sweep import benchmarks

    asked = benchmarks.cases(options.cases, limit=options.limit, seed=options.seed)
    result = run_scan(
        options.load(options.adapter, options.quantize),
        asked,
        options.out,
        exits=options.exits,
        seed=options.seed,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        batch_size=options.batch_size,
    )
    _show(result)
    print(printable(f"run: {options.out} (page: layeralign report {options.out} --out report.html)"))


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

    The encoder and the projector stay as they are. Stopped at any moment, the same command goes on.
    `accelerate launch -m layeralign align ...` trains with many processes.
    """
    from layeralign.api import align as run_align

    run_align(
        options.load(),
        options.cases,
        options.out,
        reward=options.reward,
        settings=settings,
        limit=options.limit,
    )
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
    batch_size: int = 32
    "Rows (case × exit) that are answered together when judged."


@app.command
def transfer(options: AlignOptions, judged: TransferOptions, settings: Settings = Settings()) -> None:  # noqa: B008
    """Train once for each part of --exits, scan every exit before and after: does closing one open another?

    Parts are divided by commas (`0,3,early`); `each` is every exit by itself. `--out` gets the runs, the
    adapters, transfer.json, and transfer.html with the heat map.
    """
    from layeralign.report.heatmap import table
    from layeralign.sweep import benchmarks
    from layeralign.training.reward import load_reward
    from layeralign.transfer import Judging
    from layeralign.transfer import transfer as run_transfer

    trained = benchmarks.cases(options.cases, limit=options.limit, seed=settings.seed)
    tested = benchmarks.cases(judged.test, limit=judged.test_limit)
    reward = load_reward(options.reward) if options.reward else None
    judging = Judging(tested, settings.max_new_tokens, judged.batch_size)

    found = run_transfer(
        options.load, trained, options.out, reward=reward, settings=settings, judging=judging
    )
    _print(table(found))
    print(printable(f"transfer: {options.out / 'transfer.html'}"))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """Which model."""

    model: str
    "A checkpoint folder, a hub id, or `testbed`; its config is enough."
    revision: str | None = None
    "Branch, tag or commit of a hub id."
    variant: str | None = None
    "How the family reads an exit, where it has several ways."
    json: bool = False
    "JSON for scripts instead of a table."
    time: bool = False
    "Also measure how long each exit takes, on random weights."


@app.command
def inspect(options: InspectOptions) -> None:
    """Show a model's encoder: its blocks, its default exit, and what every other exit saves.

    Works from the config alone; no weights are loaded.
    """
    from layeralign.report import anatomy
    from layeralign.vlm import cost
    from layeralign.vlm.load import empty

    vlm = empty(options.model, revision=options.revision, variant=options.variant)
    found = cost.anatomy(vlm)
    if options.time:
        found = cost.timed(vlm, found)
    if options.json:
        print(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        print(anatomy.heading(found))
        _print(anatomy.table(found))


@app.command
def cases(given: str | None = None, *, limit: int | None = None, seed: int = 0) -> None:
    """List the public benchmarks that can be read, or read cases and say what they are.

    Parameters
    ----------
    given
        What --cases of scan takes; left out, the benchmarks are listed.
    limit
        Take only so many.
    seed
        Of samples and of the pairing with pictures.
    """
    from layeralign.report import cases as shown
    from layeralign.sweep import benchmarks

    if given is None:
        _print(shown.known())
    else:
        _print(shown.table(benchmarks.cases(given, limit=limit, seed=seed)))


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
    """Train a reward model on preference pairs; stopped, the same command goes on. See docs/reward.md."""
    from layeralign.training.reward_model import train_reward

    record = train_reward(**vars(options))
    held = record["held_out"]
    if held["n"]:
        low, high = 100 * held["low"], 100 * held["high"]
        print(f"held-out accuracy: {100 * held['accuracy']:.1f} % ({low:.1f}–{high:.1f}), n = {held['n']}")
    print(printable(f"reward: {options.out} (use: layeralign align --reward {options.out} ...)"))


@app.command
def judge(
    run: Path,
    *,
    judge: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    endpoint: str | None = None,
    again: bool = False,
    retry_invalid: bool = False,
) -> None:
    """Judge the answers of a run; nothing is generated again. Stopped, the same command goes on.

    Parameters
    ----------
    run
        The run's folder.
    judge
        KIND or KIND:MODEL, once or more: oracle (testbed cases only), refusal, llama-guard-3,
        llama-guard-3-1b, llama-guard-3-vision, llama-guard-4; oracle and refusal by default.
    endpoint
        Base URL of an OpenAI-compatible server that models are asked of; its key is LAYERALIGN_API_KEY in the
        environment. Without it, models run here.
    again
        Forget what these judges said before.
    retry_invalid
        Ask again about what they could not judge.
    """
    from layeralign.api import judge as run_judge

    names = judge or ["oracle", "refusal"]
    _show(run_judge(run, names, endpoint=endpoint, again=again, retry_invalid=retry_invalid))


@app.command
def summary(run: Path, *, format: Literal["table", "json"] = "table", judge: str | None = None) -> None:
    """Show a run's figures per exit and per group.

    Parameters
    ----------
    run
        The run's folder.
    format
        A table for people, or JSON for scripts.
    judge
        Whose verdicts make the ASR; by default the most trusted that has judged.
    """
    from layeralign.api import read

    result = read(run, judge)
    if format == "json":
        print(json.dumps(result.summary.to_json(), indent=2, allow_nan=False))
    else:
        _show(result)


@app.command
def report(run: Path, *, out: Path) -> None:
    """Write a run's page, and its curve beside it as SVG and PNG; no answers are in it.

    Parameters
    ----------
    run
        The run's folder.
    out
        The page, as report.html.
    """
    from layeralign.api import read

    read(run).report(out)
    print(printable(f"report: {out}"))


@app.command
def export(run: Path, *, format: Literal["jsonl", "parquet"] = "jsonl", out: Path | None = None) -> None:
    """Write a run's rows, answers and verdicts included, to a file that only you can read.

    Parameters
    ----------
    run
        The run's folder.
    format
        One JSON object per line, or Parquet (needs layeralign[parquet]).
    out
        The file; rows.jsonl or rows.parquet in the run's folder by default.
    """
    from layeralign.runs.export import export as write
    from layeralign.runs.store import open_run

    file = out or run / f"rows.{format}"
    with open_run(run) as opened:
        n = write(opened, format, file)
    print(printable(f"{n} rows: {file}"))


@app.command
def demo(*, out: Path = Path("out/demo"), cases: int = 1200, steps: int = 60) -> None:
    """Scan the bundled model at every exit, train the hole away, scan again, and write a page about it.

    Parameters
    ----------
    out
        Folder for the runs `before` and `after`, their summaries as JSON, the `adapter`, `report.html`.
    cases
        How many cases of the testbed's dev split are judged; training sees the train split only.
    steps
        How many steps of L-PPO.
    """
    from layeralign.demo import demo as run_demo
    from layeralign.report.change import table as change_table

    comparison = run_demo(out, cases, steps)
    _print(change_table(comparison))
    print(printable(f"report: {out / 'report.html'}"))


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the process's exit code."""
    tokens = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in tokens
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that lacks a sign shows another for it
            stream.reconfigure(errors="replace")
    if not debug:
        warnings.simplefilter("ignore")  # of libraries; a user cannot act on them
    try:
        tokens, app.config = _config([token for token in tokens if token != "--debug"])
        app(tokens, exit_on_error=False, print_error=False)
    except (LayeralignError, CycloptsError) as error:
        return _fail(str(error), debug)
    except KeyboardInterrupt:
        print("\nstopped; what is done is kept, and the same command goes on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'a file'}: {error.strerror or error}", debug)
    except Exception as error:  # a mistake of ours, not of the user's
        what = f"{type(error).__name__}: {printable(str(error), 200)}"
        return _fail(f"a bug in layeralign ({what}); --debug shows where, please report it", debug)
    return 0


def _config(tokens: list[str]) -> tuple[list[str], tuple[Dict, ...]]:
    """Take `--config FILE` out of the tokens: a YAML file whose keys are the command's flags."""
    for at, token in enumerate(tokens):
        name, joined, value = token.partition("=")
        if name == "--config":
            file = value if joined else next(iter(tokens[at + 1 : at + 2]), "")
            if not Path(file).is_file():
                raise LayeralignError(f"--config {file}: no such file; expected a YAML file")
            found = _read_config(Path(file))
            rest = tokens[:at] + tokens[at + (1 if joined else 2) :]
            for command in reversed(app.parse_commands(rest)[0]):  # else a flag named as a command is dropped
                found = {command: found}
            return rest, (Dict(found, source=file),)
    return tokens, ()


def _read_config(file: Path) -> dict[str, Any]:
    """The file's flags; refuses what YAML would let slip: `yes` for a number, 1.5 for a count, nesting."""
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise LayeralignError(f"--config {file}: is not valid YAML ({printable(str(error), 200)})") from error
    if not isinstance(found, dict):
        raise LayeralignError(f"--config {file}: expected `flag: value` lines, found {type(found).__name__}")
    for key, value in found.items():
        plain = isinstance(value, str | int) and not isinstance(value, bool)
        fraction = isinstance(value, float) and key in _FRACTIONS
        flag = isinstance(value, bool) and key in FLAGS
        if not isinstance(key, str) or not (plain or fraction or flag):
            raise LayeralignError(
                f"--config {file}: {key!r} is {value!r}; expected a flag's name with a text or a whole "
                f"number (a fraction for {', '.join(sorted(_FRACTIONS))}; true or false for "
                f"{', '.join(sorted(FLAGS))})"
            )
    return found


def _fail(message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"layeralign: {printable(message)}", file=sys.stderr)
    return 1


def _show(result: Scan) -> None:
    console = _console()
    console.print(result.table(console.width))


def _print(table: Table) -> None:
    _console().print(table)


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=140)
