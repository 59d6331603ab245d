"""`doctor`: checks of what a scan relies on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter

from layeralign._util.terminal import put
from layeralign.cli.options import Device, Dtype, Format, Json, ModelOptions  # noqa: F401 - as below

EXIT_FAILED = 2


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DoctorOptions(ModelOptions):
    """The model to check."""

    adapter: Path | None = None
    "Folder of a LoRA adapter, as align writes it."
    format: Format = "table"
    "Table, or JSON for scripts."
    json: Json = False
    "The same as --format json."


def doctor(options: DoctorOptions) -> int:
    """Check in a minute what a scan of a model relies on: template, end tokens, context, dtype, decoding.

    Exit codes: 0 no check failed, 2 a check failed, 1 error.
    """
    vlm = options.load(options.adapter)
    from layeralign.diagnosis import diagnose
    from layeralign.report.terminal import doctor as checks

    found = diagnose(vlm)
    if options.json or options.format == "json":
        print(json.dumps(found.to_json(), indent=2))
    else:
        put(checks.table(found))
    return 0 if found.fine else EXIT_FAILED
