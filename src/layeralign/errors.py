"""The one error type that users see."""

from __future__ import annotations


class LayeralignError(Exception):
    """Invalid input. The message is one sentence that says what is wrong, where, and how to fix it."""
