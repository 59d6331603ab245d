"""Silence for libraries whose messages a user cannot act on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import transformers


@contextmanager
def quiet(*, bars: bool = False) -> Iterator[None]:
    """Suppress transformers' warnings, which a user cannot act on, and without `bars` its progress bars."""
    logs = transformers.utils.logging
    level, enabled = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity(logging.CRITICAL)
    if not bars:
        logs.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of PEFT's calls of transformers
            yield
    finally:
        logs.set_verbosity(level)
        if enabled:
            logs.enable_progress_bar()
