"""`inspect`: a model's encoder and its exits."""

from __future__ import annotations

import json
from dataclasses import dataclass

from cyclopts import Parameter

from layeralign._util.terminal import put
from layeralign.cli.options import Format, Json


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """The model to inspect."""

    model: str
    "Checkpoint folder, hub id, testbed, or natural; the config is enough."
    revision: str | None = None
    "Branch, tag or commit of a hub id."
    variant: str | None = None
    "How the family reads an exit, where it has several ways."
    format: Format = "table"
    "Table, or JSON for scripts."
    json: Json = False
    "The same as --format json."
    time: bool = False
    "Measure the run time of each exit on random weights, in milliseconds."


def inspect(options: InspectOptions) -> None:
    """Show a model's image encoder: its blocks, its default exit, and what each earlier exit saves.

    The command reads the config only; it loads no weights.
    """
    from layeralign.report.terminal import encoder
    from layeralign.vlm import cost
    from layeralign.vlm.load import empty

    vlm = empty(options.model, revision=options.revision, variant=options.variant)
    found = cost.encoder(vlm)
    if options.time:
        found = cost.timed(vlm, found)
    if options.json or options.format == "json":
        print(json.dumps(found.to_json(), indent=2, allow_nan=False))
    else:
        put(encoder.heading(found))
        put(encoder.table(found))
