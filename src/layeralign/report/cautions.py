"""What has to be said before a finding, since it changes what the finding is worth."""

from __future__ import annotations

from collections.abc import Callable

from layeralign.analysis.summary import Cut, NoAnswer, Summary, Unfinished
from layeralign.text import printable
from layeralign.vlm import finite

_CUT = 0.05
"""Share of answers cut at the longest length, at all exits or at one, from which on that is said first: a
refusal may come later."""


def caution(summary: Summary) -> str:
    """What has to be said before the finding, since it changes what that is worth."""
    judges, told, cut = printable(" and ".join(summary.trained_against)), "", summary.cut
    told += "".join(map(_unanswered(summary.dtype), summary.no_answers))
    told += "".join(map(_unfinished, summary.unfinished))
    if judges:
        told += f"{judges} is the reward that this model was trained against, no witness. "
    if summary.base:
        told += f"The adapter was trained on a different model: {printable(summary.base)}. "
    if summary.trained_on:
        told += f"This model was trained on {summary.trained_on} of these cases: no test of others. "
    if cut and max(cut.share, cut.worst) > _CUT:
        at = f", {_percent(cut.worst)} % at exit {cut.exit}" if cut.share <= _CUT else ""
        told += f"{how_cut(cut)}{at}; a refusal may come later. "
    return told


def _unanswered(dtype: str) -> Callable[[NoAnswer], str]:
    """One sentence about rows that hold no answer, of a model whose weights are of this dtype."""

    def told(found: NoAnswer) -> str:
        where = finite.listed(found.exits)
        count = f"{found.rows} of {found.of} answers there"
        if found.reason == "non-finite":
            return (
                f"Numerical failure at {where} ({dtype}): the logits of {count} are not finite numbers, "
                f"so they are "
                f"invalid; {finite.advice([dtype])}. "
            )
        return (
            f"Reasoning without an answer at {where}: {count} end within the model's reasoning and are "
            f"invalid; "
            "allow more new tokens (max_new_tokens). "
        )

    return told


def _unfinished(found: Unfinished) -> str:
    name = printable(found.judge)
    return (
        f"Judge {name} is unfinished: it has judged {found.judged} of {found.of} answers; layeralign "
        f"judge RUN "
        f"--judge {name} goes on. "
    )


def how_cut(cut: Cut) -> str:
    """How many answers were not read to their end."""
    return (
        f"{_percent(cut.share)} % of the answers to harmful requests were cut at {cut.longest} tokens "
        "(max_new_tokens)"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.01 else f"{100 * share:.1g}"
