"""A scan with a vLLM server as its engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from layeralign.cases.case import Case
from layeralign.decode.decoding import Decoding
from layeralign.decode.stream import Query
from layeralign.errors import LayeralignError
from layeralign.runs.store import Row, Run
from layeralign.sweep.settings import ScanSettings
from layeralign.sweep.sweep import Engine, sweep
from layeralign.sweep.vllm.handshake import Shaken, shake
from layeralign.sweep.vllm.server import Server
from layeralign.vlm.load import empty, load, own_device
from layeralign.vlm.placement import language_model_on_disk
from layeralign.vlm.vlm import Vlm


def server_of(engine: str | None, endpoint: str | None) -> str | None:
    """The endpoint of these flags or arguments; None without an engine.

    Raises:
        LayeralignError: The engine is unknown, or one of the two is given alone.
    """
    if engine not in (None, "vllm"):
        raise LayeralignError(f"engine {engine!r}: expected vllm, or none for layeralign's own")
    if (engine is None) != (endpoint is None):
        raise LayeralignError("engine and endpoint: belong together; expected both or none")
    return endpoint


def sweep_through(
    endpoint: str, given: Mapping[str, Any], cases: Sequence[Case], out: Path, settings: ScanSettings
) -> Run:
    """Scan as `layeralign.sweep.sweep.sweep`, with the answers of a vLLM server.

    Args:
        endpoint: The server; see `Server`.
        given: Arguments of `layeralign.vlm.load.load`; `device_map` is the encoder's device.
        cases: The cases.
        out: The run's folder.
        settings: The scan's settings.

    Raises:
        LayeralignError: As `sweep`, or the server is not there or does not compute this model.
    """
    vlm, server = connected(endpoint, given)
    return sweep(vlm, cases, out, settings, _Vllm(vlm, server))


def connected(endpoint: str, given: Mapping[str, Any]) -> tuple[Vlm, Server]:
    """A server, and the model whose language model it computes; see `sweep_through`.

    Raises:
        LayeralignError: The server is not there, or the model cannot be loaded.
    """
    server = Server(endpoint)
    shape = empty(given["model"], revision=given.get("revision"), variant=given.get("variant"))
    placed = language_model_on_disk(shape, given.get("device_map") or str(own_device()))
    return load(**{**given, "device_map": placed}), server


class _Vllm(Engine):
    """A vLLM server that answers."""

    def __init__(self, vlm: Vlm, server: Server) -> None:
        super().__init__(vlm)
        self._server = server
        self._shaken: Shaken

    def record(self) -> dict[str, Any]:
        """See `Engine.record`."""
        return {"engine": self._server.record()}

    def check(self, cases: Sequence[Case], decoding: Decoding) -> None:
        """See `Engine.check`."""
        self._shaken = shake(self._server, self.vlm, cases, decoding)

    def answers(self, asked: Sequence[Query], settings: ScanSettings) -> Iterator[list[Row]]:
        """See `Engine.answers`."""
        yield from self._server.answers(self.vlm, asked, settings)
        self._shaken.again(self._server)
