"""`plan`: what a scan will show, and how long it takes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from layeralign._util.text import printable
from layeralign.cli.app import app, note, put
from layeralign.cli.models import ModelOptions
from layeralign.errors import LayeralignError

if TYPE_CHECKING:
    from layeralign.cases.case import Case
    from layeralign.exits import Exits


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What is to be scanned, and what it is to show."""

    cases: str
    "As scan takes it."
    limit: int | None = None
    "Take only the first so many cases."
    seed: int = 0
    "Of benchmarks that are drawn."
    exits: Annotated[str, Parameter(allow_leading_hyphen=True)] = "all"
    "As scan takes it."
    model: str | None = None
    "A checkpoint folder, a hub id, or `testbed`; its config is enough, but for --measure."
    revision: str | None = None
    "Branch, tag or commit of a hub id."
    difference: float = 0.05
    "The difference of two shares that is to be seen."
    share: float = 0.1
    "The smaller of the two."
    power: float = 0.8
    "With what probability it is to be seen."
    samples: int = 1
    "Answers to each case at each exit."
    like: Path | None = None
    "A run whose rate is taken, and whose exits without --model."
    rate: float | None = None
    "Answers per second."
    measure: bool = False
    "Answer four cases with the model, as scan would, to measure the rate."
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    "Number format of the weights, for --measure."
    device_map: str | None = None
    "A torch device, or auto, balanced or sequential, for --measure."
    max_new_tokens: int = 128
    "Longest answer, for --measure."
    batch_size: int | None = None
    "Most answers under way together, for --measure; by default what memory allows."
    background: str = "white"
    "Colour behind transparent pictures, for --measure: white, black, or #rrggbb."
    json: bool = False
    "JSON for scripts instead of a table."


@app.command
def plan(options: PlanOptions) -> None:
    """Say before a scan how many cases it needs to show a difference, and how long it will take."""
    from layeralign import benchmarks
    from layeralign.analysis.plan import plan as make
    from layeralign.report.terminal import plan as shown
    from layeralign.report.terminal.cases import picture_remarks

    if sum((options.rate is not None, options.like is not None, options.measure)) > 1:
        raise LayeralignError("plan: expected one of --like, --rate and --measure, got several")
    asked = benchmarks.cases(options.cases, limit=options.limit, seed=options.seed)
    note(picture_remarks(asked, options.background))
    exits = _exits(options)
    chosen = exits.parse(options.exits)
    rate, source = _rate(options, asked)
    made = make(
        asked,
        len(chosen),
        with_default=exits.default in chosen,
        difference=options.difference,
        share=options.share,
        power=options.power,
        samples=options.samples,
        rate=rate,
    )
    if options.json:
        print(json.dumps(made.to_json(), indent=2, allow_nan=False))
        return
    for line in shown.lines(made, source):
        print(printable(line))
    put(shown.table(made))


def _exits(options: PlanOptions) -> Exits:
    from layeralign.exits import Exits
    from layeralign.runs.store import open_run
    from layeralign.vlm.load import empty

    if options.model is not None:
        return empty(options.model, revision=options.revision).exits
    if options.like is None:
        raise LayeralignError("plan: a model says what exits there are; expected --model or --like")
    with open_run(options.like) as run:
        return Exits.from_json(run.encoder)


def _rate(options: PlanOptions, asked: list[Case]) -> tuple[float | None, str]:
    """Answers per second, and where that is from."""
    from layeralign.decode.decoding import Decoding
    from layeralign.runs.store import open_run
    from layeralign.sweep import rate
    from layeralign.sweep.sweep import Settings

    if options.like is not None:
        with open_run(options.like) as run:
            return rate.of(run), f"as in {options.like}"
    if not options.measure:
        return options.rate, "as given"
    if options.model is None:
        raise LayeralignError("plan: --measure answers with a model; expected --model")
    vlm = ModelOptions(
        model=options.model,
        revision=options.revision,
        dtype=options.dtype,
        device_map=options.device_map,
    ).load()
    settings = Settings(
        options.exits,
        Decoding(options.max_new_tokens),
        options.seed,
        options.batch_size,
        background=options.background,
    )
    return rate.measured(vlm, asked, settings), "measured"
