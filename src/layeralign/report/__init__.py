"""Output for people: a terminal table, a chart, a page."""

from typing import Literal

What = Literal["curve", "categories", "tradeoff", "controls", "changes", "training"]
"""The page's charts, each of which can be drawn as a figure."""
