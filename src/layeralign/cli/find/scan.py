"""`scan`: a model's answers at every exit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import Parameter

from layeralign._util.terminal import put, say
from layeralign._util.text import printable
from layeralign.cli.app import note, show
from layeralign.cli.options import (  # noqa: F401 - see ModelOptions
    ClusterOptions,
    Device,
    Dtype,
    EngineOptions,
    ModelOptions,
    Out,
)
from layeralign.errors import LayeralignError
from layeralign.sweep.settings import ScanSettings

if TYPE_CHECKING:
    from layeralign.cases.case import Case
    from layeralign.sweep.pool import Cluster
    from layeralign.vlm.vlm import Vlm


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ScanOptions(ModelOptions):
    """The model, the cases and the run's folder; `ScanSettings` has all else."""

    cases: str
    "File; testbed or natural, also with `:train`, `:dev` or `:test`; or a benchmark: NAME or NAME:FOLDER."
    out: Out
    "Folder of the run: it is made, resumed, or added to."
    limit: int | None = None
    "Maximum number of cases; by default all cases, and 1000 on the testbed."
    controls: bool = False
    "Ask every case also without its picture, with a blank picture and with noise."
    adapter: Path | None = None
    "Folder of a LoRA adapter, as align writes it."
    allow: Literal["base"] | None = None
    "base: load an adapter that was trained on a different base model; the run and its page say so."
    quantize: Literal["4bit", "8bit"] | None = None
    "Quantise the language model's weights with bitsandbytes; needs CUDA."
    screen: bool = False
    "Generate no answers: rank the exits by the probability that a refusal begins."


def scan(
    options: ScanOptions,
    settings: ScanSettings = ScanSettings(),  # noqa: B008 - immutable
    on: ClusterOptions = ClusterOptions(),  # noqa: B008
    by: EngineOptions = EngineOptions(),  # noqa: B008
) -> None:
    """Answer every case at every exit of the model's image encoder, judge the answers, and summarise.

    `--config FILE` names a YAML file whose keys are these flags (`max_new_tokens: 64`); a flag on the
    command line overrides the file. `--debug` shows the traceback of an error.
    """
    cluster, server = on.cluster(), by.server() if by.engine or by.endpoint else None
    if (cluster or server) and (options.screen or options.quantize):
        raise LayeralignError("--screen and --quantize: work in one process; remove --ray or --engine")
    if cluster and server:
        raise LayeralignError("--ray and --engine: expected one of them")
    if options.screen and (settings.samples > 1 or options.controls or settings.precision is not None):
        raise LayeralignError("--screen: generates no answers; remove --samples, --controls and --precision")
    _run(options, settings, cluster, server)
    if not options.screen:
        _show(options.out)


def _run(options: ScanOptions, settings: ScanSettings, cluster: Cluster | None, server: str | None) -> None:
    """Scan or screen; the model and the cases are freed at the end."""
    from layeralign import benchmarks
    from layeralign.cases.controls import with_controls
    from layeralign.report.terminal import cases as remarks

    cases = benchmarks.cases(options.cases, limit=options.limit, seed=settings.seed)
    asked = with_controls(cases) if options.controls else cases
    given = options.arguments(options.adapter, options.quantize, allow_base=options.allow == "base")
    if server:
        from layeralign.sweep.vllm.scan import sweep_through

        options.announce()
        note(remarks.remarks(cases, settings.background))
        sweep_through(server, given, asked, options.out, settings).close()
        return
    here = replace(options, device_map="cpu") if cluster else options
    vlm = here.load(options.adapter, options.quantize, allow_base=options.allow == "base")
    note(remarks.remarks(cases, settings.background))
    if options.screen:
        _screen(vlm, cases, options.out, settings)
    elif cluster:
        from layeralign.sweep.cluster import sweep_on

        sweep_on(cluster, given, vlm, asked, options.out, settings).close()
    else:
        from layeralign.sweep.sweep import sweep

        sweep(vlm, asked, options.out, settings).close()


def _screen(vlm: Vlm, cases: Sequence[Case], out: Path, settings: ScanSettings) -> None:
    """Screen, and print the ranking."""
    from layeralign.report.terminal import screen as ranking
    from layeralign.sweep.screen import screen

    found = screen(vlm, cases, out, settings)
    put(ranking.table(found))
    say(ranking.told(found))
    print(printable(f"run: {out} (the same command without --screen scans)"))


def _show(out: Path) -> None:
    """Print a run's summary, and the next command."""
    from layeralign.analysis.results import Results
    from layeralign.analysis.summary import summarise

    show(summarise(Results.load(out)))
    print(printable(f"run: {out} (page: layeralign report {out} --out report.html)"))
