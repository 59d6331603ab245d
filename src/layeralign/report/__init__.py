"""Output for people: a terminal table, a chart, a page."""

from typing import Literal

What = Literal["curve", "tradeoff", "categories", "controls", "changes", "training"]
"""The page's charts; the numbers of each can be written as CSV."""
Drawing = Literal["curve", "tradeoff"]
"""The charts that are drawn for a paper; docs/report.md says why these two."""
