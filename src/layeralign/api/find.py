"""Functions that find the early-exit hole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from layeralign import benchmarks
from layeralign.analysis.plan import plan as make_plan
from layeralign.analysis.results import Results
from layeralign.api.judging import read
from layeralign.cases import files
from layeralign.cases.controls import with_controls
from layeralign.cases.readers.reader import BENCHMARKS
from layeralign.decode.decoding import Decoding
from layeralign.diagnosis import diagnose
from layeralign.errors import LayeralignError
from layeralign.report.notebook.others import Benchmarks, Cases, Diagnosis, Encoder, Plan, Screen
from layeralign.report.notebook.runs import Scan
from layeralign.report.notebook.shown import shown
from layeralign.runs.opening import open_run
from layeralign.serving.limits import LONGEST
from layeralign.serving.server import Server
from layeralign.sweep import rate as speed
from layeralign.sweep.cluster import sweep_on
from layeralign.sweep.pool import Cluster
from layeralign.sweep.screen import screen as screen_exits
from layeralign.sweep.settings import ScanSettings, names_decoding, names_settings
from layeralign.sweep.sweep import sweep
from layeralign.sweep.vllm.scan import connected, server_of, sweep_through
from layeralign.vlm import cost
from layeralign.vlm.load import empty, load
from layeralign.vlm.vlm import Vlm

if TYPE_CHECKING:
    from layeralign.cases.rows import Rows
    from layeralign.exits import Exits


@names_settings
def scan(
    model: Vlm | str | Path,
    cases: str | Path | Rows,
    out: str | Path,
    *,
    limit: int | None = None,
    controls: bool = False,
    adapter: str | Path | None = None,
    ray: str | None = None,
    workers: int | None = None,
    gpus_per_worker: float = 0.0,
    engine: Literal["vllm"] | None = None,
    endpoint: str | None = None,
    **settings: Any,
) -> Scan:
    """Generate an answer to every case at every exit, judge the answers by rules, and summarise the run.

    A scan that was stopped resumes when the same call is made again.

    Args:
        model: from `load`, or an argument of `load`.
        cases: a JSONL file, the name of a benchmark (`testbed`), cases, or rows: a list of dicts, a pandas
            DataFrame or a `datasets.Dataset`, with the fields of a case file; see docs/cases.md.
        out: the run's folder; it is created, resumed or extended.
        limit: maximum number of cases.
        controls: whether to run every case also without its picture, with a blank picture and with noise.
        adapter: the adapter of a model that is not loaded yet, as in `load`.
        ray: a Ray cluster whose workers answer: `auto`, `local` or an address; see docs/cluster.md. The model
            is then a folder or a hub id, which every worker loads.
        workers: number of workers; by default one per node, or with `gpus_per_worker` one per GPU share.
        gpus_per_worker: GPUs of each worker, 0 for none.
        engine: `vllm`: the language model runs on a vLLM server; see docs/vllm.md. The model is then a folder
            or a hub id.
        endpoint: the server of `engine`: its base URL, or `MODEL@URL` if it has several models.
        settings: fields of `layeralign.sweep.settings.ScanSettings` and of
            `layeralign.decode.decoding.Decoding` by name: `exits="early,20"`, `max_new_tokens=64`,
            `temperature=0.7`, `samples=4`. `exits` also takes a number or a list, such as `[1, 5]`.

    Raises:
        LayeralignError: an argument is invalid; the message names it.
    """
    chosen = ScanSettings.of(**settings)
    asked = benchmarks.cases(cases, limit=limit, seed=chosen.seed)
    if controls:
        asked = with_controls(asked)
    cluster, server = Cluster.of(ray, workers, gpus_per_worker), server_of(engine, endpoint)
    if cluster and server:
        raise LayeralignError("scan: expected one of ray and engine, got both")
    if isinstance(model, Vlm):
        if cluster or server or adapter:
            raise LayeralignError("scan: ray, engine and adapter need the model's folder or hub id")
        sweep(model, asked, Path(out), chosen).close()
        return read(out)
    given: dict[str, Any] = {"model": str(model), "adapter": adapter}
    if server:
        sweep_through(server, given, asked, Path(out), chosen).close()
    elif cluster:
        sweep_on(cluster, given, load(**given, device_map="cpu"), asked, Path(out), chosen).close()
    else:
        sweep(load(**given), asked, Path(out), chosen).close()
    return read(out)


@names_settings
def screen(
    model: Vlm | str | Path,
    cases: str | Path | Rows,
    out: str | Path,
    *,
    limit: int | None = None,
    **settings: Any,
) -> Screen:
    """Estimate the harm at each exit without generating answers; see docs/sequential.md.

    The arguments are those of `scan`, without `controls`, `samples` and `precision`. The same folder can hold
    a scan with the same settings afterwards.

    Raises:
        LayeralignError: an argument is invalid; the message names it.
    """
    chosen = ScanSettings.of(**settings)
    if chosen.samples > 1 or chosen.precision is not None:
        raise LayeralignError("screen: generates no answers; remove samples and precision")
    asked = benchmarks.cases(cases, limit=limit, seed=chosen.seed)
    vlm = model if isinstance(model, Vlm) else load(model)
    return shown(Screen, screen_exits(vlm, asked, Path(out), chosen))


def cases(
    given: str | Path | Rows | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
) -> Cases | Benchmarks:
    """Read and check cases; without `given`, list the public benchmarks.

    Args:
        given: as the cases of `scan`.
        limit: maximum number of cases.
        seed: seed of samples and of the pairing with pictures.
        out: a JSONL file to write the cases to; their pictures go into a folder next to it.

    Raises:
        LayeralignError: a case is invalid, or `out` exists; the message says where.
    """
    if given is None:
        if out is not None:
            raise LayeralignError(f"out {out}: needs cases to write")
        return Benchmarks(BENCHMARKS.values())
    found = benchmarks.cases(given, limit=limit, seed=seed)
    if out is not None:
        files.write(found, Path(out))
    return Cases(found)


def doctor(model: Vlm | str | Path, *, adapter: str | Path | None = None) -> Diagnosis:
    """Check what a scan of a model relies on: template, ends, context, dtype, decoding; writes nothing.

    Args:
        model: from `load`, or an argument of `load`.
        adapter: the adapter of a model that is not loaded yet, as in `load`.
    """
    vlm = model if isinstance(model, Vlm) else load(model, adapter=adapter)
    return shown(Diagnosis, diagnose(vlm))


def inspect(
    model: str | Path, *, revision: str | None = None, variant: str | None = None, time: bool = False
) -> Encoder:
    """Describe a model's image encoder and the cost of its exits; only the config is read.

    Args:
        model: a checkpoint folder, a hub id, or `testbed`.
        revision: branch, tag or commit of a hub id.
        variant: how the family reads an exit, where it has several ways; see docs/families.md.
        time: measure the run time of each exit on random weights, in seconds.

    Raises:
        LayeralignError: the model does not exist, or its encoder cannot be built from its config.
    """
    vlm = empty(model, revision=revision, variant=variant)
    found = cost.encoder(vlm)
    return shown(Encoder, cost.timed(vlm, found) if time else found)


@names_settings
def plan(
    cases: str | Path | Rows,
    *,
    limit: int | None = None,
    model: str | None = None,
    revision: str | None = None,
    dtype: str = "auto",
    device_map: str | None = None,
    difference: float = 0.05,
    share: float = 0.1,
    power: float = 0.8,
    like: str | Path | None = None,
    rate: float | None = None,
    measure: bool = False,
    workers: int = 1,
    price: float | None = None,
    **settings: Any,
) -> Plan:
    """Estimate how many cases a scan needs to show a difference, and how long it takes.

    Args:
        cases: as in `scan`.
        limit: maximum number of cases.
        model: a checkpoint folder, a hub id, or `testbed`; its config is enough without `measure`.
        revision: branch, tag or commit of a hub id.
        dtype: number format of the weights, for `measure`.
        device_map: torch device, or auto, balanced or sequential, for `measure`.
        difference: difference of two shares to detect, 0 to 1.
        share: smaller of the two shares, 0 to 1.
        power: probability of detecting the difference, 0 to 1.
        like: a run whose rate is taken, and whose exits are taken without `model`.
        rate: answers per second, of one worker.
        measure: measure the rate: answer four cases with the model and the settings.
        workers: number of workers that share the answers, as in `scan`.
        price: price of an hour of one worker, in any currency.
        settings: as in `scan`.

    Raises:
        LayeralignError: an argument is invalid, or the exits are unknown.
    """
    if sum((rate is not None, like is not None, measure)) > 1:
        raise LayeralignError("plan: expected one of like, rate and measure, got several")
    if measure and model is None:
        raise LayeralignError("plan: measure generates answers with a model; expected model")
    chosen = ScanSettings.of(**settings)
    asked = benchmarks.cases(cases, limit=limit, seed=chosen.seed)
    exits = _exits(model, revision, like)
    scanned = exits.parse(chosen.exits)
    source = "as given"
    if like is not None:
        with open_run(Path(like)) as run:
            rate, source = speed.of(run), f"as in {like}"
    elif measure and model is not None:
        vlm = load(model, revision=revision, dtype=dtype, device_map=device_map)
        rate, source = speed.measured(vlm, asked, chosen), "measured"
    found = make_plan(
        asked,
        len(scanned),
        with_default=exits.default in scanned,
        difference=difference,
        share=share,
        power=power,
        samples=chosen.samples,
        rate=rate,
        workers=workers,
        price=price,
    )
    return shown(Plan, found, source=source)


@names_decoding
def serve(
    model: Vlm | str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8001,
    log: str | Path | None = None,
    max_tokens: int = LONGEST,
    adapter: str | Path | None = None,
    engine: Literal["vllm"] | None = None,
    endpoint: str | None = None,
    **decoding: Any,
) -> None:
    """Serve every exit of a model behind an OpenAI-compatible endpoint, until a signal stops it.

    The model's name in a request picks the exit: `M@18`, `M@default`. See docs/serve.md.

    Args:
        model: from `load`, or an argument of `load`.
        host: the address to listen at; one that other machines can reach needs a key in LAYERALIGN_API_KEY.
        port: the port; 0 for any free one.
        log: the folder of a run that keeps every exchange.
        max_tokens: the largest length of an answer that a request may ask for, in tokens.
        adapter: the adapter of a model that is not loaded yet, as in `load`.
        engine: "vllm" if the vLLM server at `endpoint` computes the language model; see docs/vllm.md.
        endpoint: the server of `engine`, as in `scan`.
        decoding: fields of `layeralign.decode.decoding.Decoding` by name, for requests that name no others.

    Raises:
        LayeralignError: an argument is invalid, the port is taken, or a package is missing.
    """
    if unknown := sorted(decoding.keys() - Decoding.__dataclass_fields__.keys()):
        known = ", ".join(Decoding.__dataclass_fields__)
        raise LayeralignError(f"{unknown[0]}: is not a setting of decoding; expected one of {known}")
    given: dict[str, Any] = {"model": str(model), "adapter": adapter}
    vllm = None
    if there := server_of(engine, endpoint):
        if isinstance(model, Vlm):
            raise LayeralignError("serve: engine needs the model's folder or hub id")
        vlm, vllm = connected(there, given)
    else:
        vlm = model if isinstance(model, Vlm) else load(**given)
    folder = None if log is None else Path(log)
    how = Decoding(**decoding)
    Server(vlm, how, host=host, port=port, log=folder, max_tokens=max_tokens, vllm=vllm).run()


def _exits(model: str | None, revision: str | None, like: str | Path | None) -> Exits:
    if model is not None:
        return empty(model, revision=revision).exits
    if like is None:
        raise LayeralignError("plan: needs the exits of a model; expected model or like")
    return Results.load(Path(like)).exits
