"""`plan`: the statistical power and the duration of a scan."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter

from layeralign._util.terminal import put, say
from layeralign.cli.app import note
from layeralign.cli.options import Device, Dtype, Format, Json, ModelOptions
from layeralign.errors import LayeralignError
from layeralign.sweep.settings import ScanSettings


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """The planned scan, and the difference that it is to detect."""

    cases: str
    "Cases, as scan takes them."
    limit: int | None = None
    "Maximum number of cases."
    model: str | None = None
    "Checkpoint folder, hub id, testbed, or natural; the config is enough, except for --measure."
    revision: str | None = None
    "Branch, tag or commit of a hub id."
    dtype: Dtype = "auto"
    "Number format of the weights, for --measure; auto: the checkpoint's own on a GPU, float32 on a CPU."
    device_map: Device = None
    "Torch device, or auto, balanced or sequential, for --measure."
    difference: float = 0.05
    "Difference of two shares to detect, 0 to 1."
    share: float = 0.1
    "Smaller of the two shares, 0 to 1."
    power: float = 0.8
    "Probability of detecting the difference, 0 to 1."
    like: Path | None = None
    "Run that gives the rate and, without --model, the exits."
    rate: float | None = None
    "Answers per second."
    measure: bool = False
    "Measure the rate: answer four cases with the model and the scan's settings."
    workers: int = 1
    "Number of workers, as in scan --ray."
    price: float | None = None
    "Price of an hour of one worker, in any currency."
    format: Format = "table"
    "Table, or JSON for scripts."
    json: Json = False
    "The same as --format json."


_NOT_ASKED = ("cases", "limit", "format", "json")
"""Options that are not arguments of `layeralign.plan`, or that are used before it."""


def plan(options: PlanOptions, settings: ScanSettings = ScanSettings()) -> None:  # noqa: B008 - immutable
    """Estimate how many cases a scan needs to show a difference, and how long it takes."""
    from layeralign import benchmarks
    from layeralign.report.terminal import plan as tables
    from layeralign.report.terminal.cases import picture_remarks

    if sum((options.rate is not None, options.like is not None, options.measure)) > 1:
        raise LayeralignError("plan: expected one of --like, --rate and --measure, got several")
    if options.measure and options.model is None:
        raise LayeralignError("plan: --measure generates answers with a model; expected --model")
    if options.model is None and options.like is None:
        raise LayeralignError("plan: needs the exits of a model; expected --model or --like")
    cases = benchmarks.cases(options.cases, limit=options.limit, seed=settings.seed)
    note(picture_remarks(cases, settings.background))
    if options.measure and options.model is not None:
        named = {name: getattr(options, name) for name in ("revision", "dtype", "device_map")}
        ModelOptions(model=options.model, **named).announce()
    from layeralign.api import plan as make

    said = {name: value for name, value in vars(options).items() if name not in _NOT_ASKED}
    scan = {**vars(settings), **vars(settings.decoding)}
    del scan["decoding"]
    made = make(cases, **said, **scan)
    if options.json or options.format == "json":
        print(json.dumps(made.to_json(), indent=2, allow_nan=False))
        return
    say(*tables.lines(made, made.source))
    put(tables.table(made))
