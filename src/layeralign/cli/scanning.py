"""`scan` and `inspect`: a model at its exits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from layeralign._util.text import printable
from layeralign.cli.app import app, note, put, show
from layeralign.cli.models import ModelOptions
from layeralign.errors import LayeralignError


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ScanOptions(ModelOptions):
    """Every field is a flag, and a key of the file that --config names."""

    cases: str
    "A JSONL file; `testbed` or `testbed:train`, `:dev`, `:test`; NAME or NAME:FOLDER (layeralign cases)."
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
    samples: int = 1
    "Answers to each case at each exit; more than one wants a temperature above 0."
    system: str = ""
    "What the model is told before every prompt, in its template's system turn."
    date: str = ""
    "The day that a chat template is told if it asks for one, as 2026-11-28; by default the run's first."
    special_tokens: Literal["literal", "parse"] = "literal"
    "Whether special tokens in a case's text, as </s>, are read as text or as what they mean to the model."
    reasoning: str = "auto"
    "Marks around the model's reasoning, as '<think> </think>'; auto knows the usual ones; none: it has none."
    controls: bool = False
    "Also ask every case without its picture, with a blank one and with noise."
    background: str = "white"
    "Colour behind transparent pictures: white, black, or #rrggbb."
    limit: int | None = None
    "Take only the first so many cases; the testbed makes just so many."
    seed: int = 0
    "Of sampling, and of benchmarks that are drawn."
    adapter: Path | None = None
    "Folder of a LoRA adapter, as align leaves it, to put on the model."
    allow: Literal["base"] | None = None
    "base: load the adapter although it was trained on a different model; the run and its page say so."
    quantize: Literal["4bit", "8bit"] | None = None
    "Squeeze the language model's weights with bitsandbytes; wants CUDA."
    batch_size: int | None = None
    "Most answers under way together; by default what memory allows."
    precision: float | None = None
    "Ask at each exit only until its ASR is known to this half-width or surely differs from the default's."
    screen: bool = False
    "Answer nothing: estimate each exit's harm from how probably a refusal begins, and rank the exits."


@app.command
def scan(options: ScanOptions) -> None:
    """Put every case to a model at every exit of its image encoder, and sum up.

    `--config FILE` names a YAML file whose keys are these flags (`max_new_tokens: 64`); what the
    command line says goes before it. `--debug` shows the traceback of an error.
    """
    from layeralign import api, benchmarks
    from layeralign.report.terminal import cases as shown
    from layeralign.report.terminal import screen as report

    if options.screen and (options.samples > 1 or options.controls or options.precision is not None):
        raise LayeralignError("screen: answers nothing; expected no samples, controls or precision beside it")
    asked = benchmarks.cases(options.cases, limit=options.limit, seed=options.seed)
    note(shown.remarks(asked, options.background))
    vlm = options.load(options.adapter, options.quantize, allow_base=options.allow == "base")
    how: dict[str, Any] = {
        "exits": options.exits,
        "seed": options.seed,
        "max_new_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "system": options.system,
        "date": options.date,
        "special_tokens": options.special_tokens,
        "reasoning": options.reasoning,
        "batch_size": options.batch_size,
        "background": options.background,
    }
    if options.screen:
        found = api.screen(vlm, asked, options.out, **how)
        put(report.table(found))
        print(report.told(found))
        print(printable(f"run: {options.out} (the same command without --screen scans)"))
        return
    how |= {"samples": options.samples, "controls": options.controls, "precision": options.precision}
    show(api.scan(vlm, asked, options.out, **how))
    print(printable(f"run: {options.out} (page: layeralign report {options.out} --out report.html)"))


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
    from layeralign.report.terminal import encoder as anatomy
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
        put(anatomy.table(found))
