"""Libraries kept silent, and away from the hub."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(*, bars: bool = False) -> Iterator[None]:
    """Suppress transformers' warnings, which a user cannot act on, and without `bars` its progress bars."""
    import transformers  # not by commands that load no model

    logs, placing = transformers.utils.logging, logging.getLogger("accelerate.big_modeling")
    level, enabled = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity(logging.CRITICAL)
    placing.disabled = True  # it says that parameters are on disk
    if not bars:
        logs.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of PEFT's calls of transformers
            warnings.filterwarnings("ignore", "The following device_map keys")  # a parameter is no submodule
            yield
    finally:
        logs.set_verbosity(level)
        placing.disabled = False
        if enabled:
            logs.enable_progress_bar()


@contextmanager
def offline() -> Iterator[None]:
    """Let no library reach the hub in the block: a config may name what it would download and use."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
