"""`serve`: any exit behind an OpenAI-compatible endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter

from layeralign.cli.options import Device, Dtype, EngineOptions, ModelOptions  # noqa: F401 - see ModelOptions
from layeralign.decode.decoding import Decoding
from layeralign.serving.limits import LONGEST


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServeOptions(ModelOptions):
    """The model, and where and how it is served."""

    host: str = "127.0.0.1"
    "Address to listen at; one that other machines can reach needs a key in LAYERALIGN_API_KEY."
    port: int = 8001
    "Port; 0 for any free one."
    log: Path | None = None
    "Folder of a run that keeps every exchange, for judge, summary, report and gate."
    max_tokens: int = LONGEST
    "Largest length of an answer that a request may ask for, in tokens."
    adapter: Path | None = None
    "Folder of a LoRA adapter, as align writes it."


def serve(
    options: ServeOptions,
    decoding: Decoding = Decoding(),  # noqa: B008 - immutable
    by: EngineOptions = EngineOptions(),  # noqa: B008 - immutable
) -> None:
    """Serve every exit of a model behind an OpenAI-compatible endpoint, until Ctrl-C or SIGTERM.

    The model's name in a request picks the exit: `M@18`, `M@default`; `/v1/models` lists them. The decoding
    flags are a request's defaults. Needs `layeralign[serve]`; see docs/serve.md.
    """
    vllm = None
    if there := by.server() if by.engine or by.endpoint else None:
        from layeralign.sweep.vllm.scan import connected

        options.announce()
        vlm, vllm = connected(there, options.arguments(options.adapter))
    else:
        vlm = options.load(options.adapter)
    from layeralign.serving.server import Server

    Server(
        vlm,
        decoding,
        host=options.host,
        port=options.port,
        log=options.log,
        max_tokens=options.max_tokens,
        vllm=vllm,
    ).run()
