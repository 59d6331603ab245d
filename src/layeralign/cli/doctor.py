"""`doctor`: is a model read as it is meant to be?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal  # noqa: F401 - what cyclopts reads ModelOptions' annotations with

from cyclopts import Parameter

from layeralign.cli.app import app, put
from layeralign.cli.models import ModelOptions

EXIT_FAILED = 2


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DoctorOptions(ModelOptions):
    """Which model."""

    adapter: Path | None = None
    "Folder of a LoRA adapter, as align leaves it, to put on the model."
    json: bool = False
    "JSON for scripts instead of a table."


@app.command
def doctor(options: DoctorOptions) -> int:
    """Check what a scan of a model relies on, in a minute: template, ends, context, dtype, decoding.

    Exit codes: 0 no check failed, 2 one did, 1 error.
    """
    from layeralign import api
    from layeralign.report.terminal import doctor as checks

    found = api.doctor(options.load(options.adapter))
    if options.json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        put(checks.table(found))
    return 0 if found.fine else EXIT_FAILED
