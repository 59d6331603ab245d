"""A server of a deployment: what its files say of its runtime, its model and its overrides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layeralign.gating.deployments.runtimes import Runtime


@dataclass(frozen=True)
class Server:
    """One server that a target names.

    Attributes:
        name: the server's place, for a person: the target, its container or its line.
        model: its model: a folder, a hub id, a `config.json`, or a vision file for llama.cpp.
        runtime: its runtime; None for a checkpoint or a config alone.
        overrides: fields of the config that the runtime changes.
        revision: the revision of a hub id.
        named: whether `model` is the word of a command, which may be a folder elsewhere, or a hub id.
        unknown: why its exit cannot be known; empty otherwise.
    """

    name: str
    model: str | Path
    runtime: Runtime | None = None
    overrides: str | Mapping[str, Any] | None = None
    revision: str | None = None
    named: bool = False
    unknown: str = ""
