"""`doctor`: checks of what a scan relies on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal  # noqa: F401 - cyclopts evaluates the annotations of ModelOptions here

from cyclopts import Parameter

from layeralign.cli.app import FIND, app, put
from layeralign.cli.options import ModelOptions

EXIT_FAILED = 2


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DoctorOptions(ModelOptions):
    """The model to check."""

    adapter: Path | None = None
    "Folder of a LoRA adapter, as align writes it."
    json: bool = False
    "Print JSON instead of a table."


@app.command(group=FIND)
def doctor(options: DoctorOptions) -> int:
    """Check in a minute what a scan of a model relies on: template, ends, context, dtype, decoding.

    Exit codes: 0 no check failed, 2 a check failed, 1 error.
    """
    from layeralign import api
    from layeralign.report.terminal import doctor as checks

    found = api.doctor(options.load(options.adapter))
    if options.json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        put(checks.table(found))
    return 0 if found.fine else EXIT_FAILED
