"""Figures for people: a terminal table, a chart, a page."""

from typing import Literal

What = Literal["curve", "categories", "tradeoff", "controls", "changes", "training"]
"""The page's charts that a figure can be made of."""
