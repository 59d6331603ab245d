"""Where a scan's time goes: functions of layeralign with a clock on each, while they are watched."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

from layeralign.decode import stream
from layeralign.decode.engine import Engine
from layeralign.runs.store import Run
from layeralign.sweep import sweep
from layeralign.vlm.vlm import Vlm

PARTS = {
    "encode": [(stream, "encode")],
    "prefill": [(Engine, "_prefill")],
    "decode": [(Engine, "_decode")],
    "planning": [(sweep.decode, "check"), (sweep, "grid"), (sweep, "missing"), (stream, "prompt_tokens"), (stream, "units")],
    "store": [(sweep.opening, "create"), (Run, "add_cases"), (Run, "add_answers"), (stream, "text")],
    "judging": [(sweep, "judge")],
}  # fmt: skip
"""Part -> the functions that it is; none of them calls another."""


class Watch:
    """Seconds by part, and the engine that ran."""

    def __init__(self, vlm: Vlm) -> None:
        self._vlm = vlm
        self.seconds: dict[str, float] = defaultdict(float)
        self.engine: Any = None

    def _clocked(self, part: str, own: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = self._now()
            try:
                return own(*args, **kwargs)
            finally:
                self.seconds[part] += self._now() - start
                self.engine = args[0] if part == "decode" else self.engine

        return run

    def _now(self) -> float:
        if self._vlm.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


@contextmanager
def watched(vlm: Vlm) -> Iterator[Watch]:
    """Within it, scans are timed by part."""
    watch = Watch(vlm)
    with ExitStack() as stack:
        for part, functions in PARTS.items():
            for owner, name in functions:
                stack.enter_context(
                    mock.patch.object(owner, name, watch._clocked(part, getattr(owner, name)))
                )
        start = watch._now()
        yield watch
        watch.seconds["all"] = watch._now() - start
