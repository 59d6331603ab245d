"""The command line: one thin command per verb. Exit codes: 0 fine, 1 bad input, 130 stopped."""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import yaml
from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Yaml
from rich.console import Console

from layeralign import __version__
from layeralign.errors import LayeralignError

app = App(
    name="layeralign",
    help="Find, measure and close the early-exit hole in vision-language models.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # main tells that the same command goes on
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """Every field is a flag, and a key of the file that --config names."""

    model: str
    "A checkpoint folder, a hub id, or `testbed`."
    cases: str
    "A JSONL file, or `testbed`, `testbed:train`, `testbed:dev`, `testbed:test`."
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
    revision: str | None = None
    "Branch, tag or commit of a hub id."
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    "Number format of the weights."
    batch_size: int = 32
    "Rows (case × exit) that are answered together."


@app.command
def scan(options: ScanOptions) -> None:
    """Put every case to a model at every exit of its image encoder, and sum up.

    `--config FILE` names a YAML file whose keys are these flags (`max_new_tokens: 64`); what the
    command line says goes before it. `--debug` shows the traceback of an error.
    """
    from layeralign.api import load
    from layeralign.api import scan as run_scan
    from layeralign.sweep import benchmarks

    asked = benchmarks.cases(options.cases, limit=options.limit, seed=options.seed)
    model = load(options.model, revision=options.revision, dtype=options.dtype)
    result = run_scan(
        model,
        asked,
        options.out,
        exits=options.exits,
        seed=options.seed,
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        batch_size=options.batch_size,
    )
    _console().print(result.table())
    print(f"run: {options.out}  (page: layeralign report {options.out} --out report.html)")


@app.command
def judge(run: Path, *, judges: str = "oracle,refusal") -> None:
    """Judge the answers of a run anew; nothing is generated again.

    Parameters
    ----------
    run
        The run's folder.
    judges
        Names by commas: oracle (testbed cases only), refusal.
    """
    from layeralign.api import judge as run_judge

    _console().print(run_judge(run, [name.strip() for name in judges.split(",")]).table())


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
        _console().print(result.table())


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
    print(f"report: {out}")


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
    print(f"{n} rows: {file}")


@app.command
def demo(*, out: Path = Path("out/demo"), cases: int = 1200) -> None:
    """Scan the bundled model at every exit and write a page about it.

    Parameters
    ----------
    out
        Folder for the run `before`, its summary `before.json` and `report.html`.
    cases
        How many cases of the testbed's dev split.
    """
    from layeralign.api import scan as run_scan

    result = run_scan(
        "testbed", "testbed:dev", out / "before", limit=cases, max_new_tokens=24, batch_size=270
    )
    (out / "before.json").write_text(json.dumps(result.summary.to_json(), indent=2) + "\n", encoding="utf-8")
    result.report(out / "report.html")
    _console().print(result.table())
    print(f"report: {out / 'report.html'}")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the process's exit code."""
    tokens = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in tokens
    try:
        tokens, app.config = _config([token for token in tokens if token != "--debug"])
        app(tokens, exit_on_error=False, print_error=False)
    except (LayeralignError, CycloptsError) as error:
        return _fail(_sentence(error), debug)
    except KeyboardInterrupt:
        print("\nstopped; what is done is kept, and the same command goes on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'a file'}: {error.strerror or error}", debug)
    return 0


def _config(tokens: list[str]) -> tuple[list[str], tuple[Yaml, ...]]:
    """Take `--config FILE` out of the tokens: a YAML file whose keys are the command's flags."""
    for at, token in enumerate(tokens):
        name, joined, value = token.partition("=")
        if name == "--config":
            file = value if joined else next(iter(tokens[at + 1 : at + 2]), "")
            if not Path(file).is_file():
                raise LayeralignError(f"--config {file}: no such file; expected a YAML file")
            try:
                yaml.safe_load(Path(file).read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise LayeralignError(f"--config {file}: is not valid YAML ({error})") from error
            rest = tokens[:at] + tokens[at + (1 if joined else 2) :]
            return rest, (Yaml(file, must_exist=True, use_commands_as_keys=False),)
    return tokens, ()


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())


def _fail(message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"layeralign: {message}", file=sys.stderr)
    return 1


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=140)
