"""What targets share."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence

from layeralign import LayeralignError

Target = tuple[Sequence[bytes], Callable[[bytes], object]]
"""The inputs to start from, and a function of bytes, which may raise `LayeralignError` and nothing else."""


def each(*calls: Callable[[], object]) -> None:
    """Do every call; a refusal of one does not keep the others from being tried."""
    for call in calls:
        with contextlib.suppress(LayeralignError):
            call()


def told(value: object) -> bytes:
    """JSON as bytes."""
    return json.dumps(value).encode()


def unicode(data: bytes) -> str:
    """Any text: UTF-8 where it is, with lone surrogates where it is not."""
    return data.decode("utf-8", "surrogateescape")
