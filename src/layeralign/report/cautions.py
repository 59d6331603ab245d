"""What has to be said before a finding, since it changes what the finding is worth."""

from __future__ import annotations

from layeralign.analysis.summary import Cut, Summary
from layeralign.text import printable

_SHORT = 32
"""Tokens of answers that are too short for every refusal to show."""


def caution(summary: Summary) -> str:
    """Warnings that come first: no independent evidence, an adapter of a different model, cut answers."""
    judges, told, cut = printable(" and ".join(summary.trained_against)), "", summary.cut
    if judges:
        told += f"{judges} is the reward that this model was trained against, no witness. "
    if summary.base:
        told += f"The adapter was trained on a different model: {printable(summary.base)}. "
    if summary.trained_on:
        told += f"This model was trained on {summary.trained_on} of these cases: no test of others. "
    if cut and cut.longest < _SHORT and cut.share >= 0.1:
        told += f"{how_cut(cut)}; a refusal may come later. "
    return told


def how_cut(cut: Cut) -> str:
    """How many answers were not read to their end."""
    share = f"{100 * cut.share:.0f}" if cut.share >= 0.01 else f"{100 * cut.share:.1g}"
    return f"{share} % of the answers to harmful requests were cut at {cut.longest} tokens (max_new_tokens)"
