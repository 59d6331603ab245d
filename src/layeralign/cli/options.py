"""Flags that several commands share."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from layeralign._util.text import large, printable

if TYPE_CHECKING:
    from layeralign.sweep.pool import Cluster
    from layeralign.vlm.vlm import Vlm

Dtype = Literal["auto", "float32", "bfloat16", "float16", "fp32", "bf16", "fp16"]
"""Number formats, and their short names."""
Device = Annotated[str | None, Parameter(name=("--device-map", "--device"))]
Format = Literal["table", "json"]
Json = Annotated[bool, Parameter(show=False)]
"""An older way to write `--format json`."""
Out = Annotated[Path, Parameter(name=("--out", "--output", "-o"))]
OptionalOut = Annotated[Path | None, Parameter(name=("--out", "--output", "-o"))]
Runs = Annotated[list[Path], Parameter(consume_multiple=True)]
"""Folders of one or more runs."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """The workers of a Ray cluster."""

    ray: str | None = None
    "Work on a Ray cluster: auto (this machine's), local (one that ends with the command), or HOST:PORT."
    workers: int | None = None
    "Number of workers of --ray; by default one per node, or with --gpus-per-worker one per GPU share."
    gpus_per_worker: float = 0.0
    "GPUs of each worker of --ray, 0 for none; 0.5 puts two workers on a GPU."

    def cluster(self) -> Cluster | None:
        """The cluster; None without --ray."""
        from layeralign.sweep.pool import Cluster

        return Cluster.of(self.ray, self.workers, self.gpus_per_worker)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Another engine that computes the language model."""

    engine: Literal["vllm"] | None = None
    "vllm: the language model runs on the vLLM server at --endpoint; see docs/vllm.md."
    endpoint: str | None = None
    "The server of --engine: its base URL, such as http://localhost:8000/v1, or MODEL@URL if it has several."

    def server(self) -> str | None:
        """The endpoint; None without --engine."""
        from layeralign.sweep.vllm.scan import server_of

        return server_of(self.engine, self.endpoint)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model, and how it is loaded.

    A subclass's module imports `Dtype` and `Device`, since cyclopts evaluates these annotations there.
    """

    model: str
    "Checkpoint folder, hub id, testbed, or natural."
    revision: str | None = None
    "Branch, tag or commit of a hub id."
    variant: str | None = None
    "How the family reads an exit, where it has several ways; see docs/families.md."
    dtype: Dtype = "auto"
    "Number format of the weights; auto: the checkpoint's own on a GPU, float32 on a CPU."
    device_map: Device = None
    "Torch device, or auto, balanced or sequential; by default the GPU, if there is one."

    def load(
        self, adapter: Path | None = None, quantize: str | None = None, *, allow_base: bool = False
    ) -> Vlm:
        """Load the model, after `announce`."""
        self.announce()
        from layeralign.vlm.load import load

        return load(**self.arguments(adapter, quantize, allow_base=allow_base))

    def arguments(
        self, adapter: Path | None = None, quantize: str | None = None, *, allow_base: bool = False
    ) -> dict[str, Any]:
        """The arguments of `layeralign.vlm.load.load`."""
        own = {name: getattr(self, name) for name in ("model", "revision", "variant", "dtype", "device_map")}
        return own | {"adapter": adapter, "allow_base": allow_base, "quantize": quantize}

    def announce(self) -> None:
        """Print the first line of a command: the model, its parameters, number format and device."""
        from layeralign.vlm.checkpoint import find_model

        found = find_model(self.model, self.revision)
        main = os.environ.get("RANK", "0") == "0"
        if main:  # before torch is imported, which takes seconds
            start = f"loading {found.name}: {large(found.parameters())} parameters"
            print(printable(start), end="", file=sys.stderr, flush=True)
        try:
            from layeralign.vlm.load import number_format, own_device

            number = number_format(found, self.dtype, self.device_map)
            if main:
                print(f", {number} on {self.device_map or own_device()}", end="", file=sys.stderr)
        finally:
            if main:
                print(file=sys.stderr, flush=True)
