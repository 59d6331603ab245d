"""The one error type that users see: a clear sentence, never a traceback."""

from __future__ import annotations


class LayeralignError(Exception):
    """Bad input. The message is one sentence: what was given, where, what was expected."""
