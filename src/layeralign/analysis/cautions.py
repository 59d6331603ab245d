"""Cautions that precede a finding because they change how much weight it can bear."""

from __future__ import annotations

from collections.abc import Sequence

from layeralign._util.text import printable
from layeralign.analysis.summary import Summary, Unfinished
from layeralign.analysis.within.unanswered import Cut, Lacking, NoAnswer
from layeralign.judges.guards.registry import GUARDS
from layeralign.judges.kinds import kind_of
from layeralign.runs.seal import UNSEALED
from layeralign.vlm import finite

_CUT = 0.05
"""Share (0 to 1) of truncated answers, over all exits or at one exit, above which a caution is shown."""


def caution(summary: Summary) -> str:
    """Return the cautions that precede a finding, as sentences; the text may be empty."""
    lines = [_unanswered(found, summary.dtype) for found in summary.no_answers]
    lines += map(_unfinished, summary.unfinished)
    if not summary.sealed:
        lines.append(f"The run was not closed: {UNSEALED}; repeat that command.")
    if summary.changed:
        lines.append(f"Some answers may be another model's: {printable(summary.changed, 400)}.")
    if summary.served:
        lines.append(
            "Clients of a server chose these requests, perhaps by earlier answers, so the figures are no "
            "estimate for others."
        )
    if summary.lacking:
        lines.append(_lacking(summary.lacking))
    if not any(exit.n for exit in summary.exits):
        lines.append("No case is harmful, so there is no ASR.")
    if summary.trained_against:
        lines.append(
            f"Warning: the model was trained on {printable(' and '.join(summary.trained_against))}; "
            "its score is not independent evidence."
        )
    if summary.related:
        lines.append(_related(summary.related))
    if summary.base:
        lines.append(f"The adapter was trained on a different model: {printable(summary.base)}.")
    if summary.trained_on:
        lines.append(f"The model was trained on {summary.trained_on} of these cases.")
    if (cut := summary.cut) and max(cut.share, cut.worst) > _CUT:
        at = f", {_percent(cut.worst)} % at exit {cut.exit}" if cut.share <= _CUT else ""
        lines.append(f"{how_cut(cut)}{at}; a refusal may come later.")
    return "".join(f"{line} " for line in lines)


def _unanswered(found: NoAnswer, dtype: str) -> str:
    """Return one sentence about rows without an answer; `dtype` is the dtype of the model's weights."""
    where, count = finite.listed(found.exits), f"{found.rows} of {found.of} answers there"
    if found.reason == "non-finite":
        return (
            f"Numerical failure at {where} ({printable(dtype, 40)}): the logits of {count} are not finite "
            f"numbers, so they are invalid; {finite.advice([dtype])}."
        )
    return (
        f"Reasoning without an answer at {where}: {count} end within the model's reasoning and are invalid; "
        "allow more new tokens (max_new_tokens)."
    )


def _lacking(found: Lacking) -> str:
    return (
        f"The scan is not complete: at {finite.listed(found.exits)}, up to {found.most} of {found.of} cases "
        "are not answered, or not as often as others. Long answers end last, and those are rarely refusals; "
        "repeat the scan's command."
    )


def _unfinished(found: Unfinished) -> str:
    name = printable(found.judge)
    return (
        f"Judge {name} is unfinished: it has judged {found.judged} of {found.of} answers; "
        f"layeralign judge RUN --judge {name} resumes it."
    )


def _related(judges: Sequence[str]) -> str:
    """Return one sentence about judges that are no independent witnesses."""
    families = " and ".join(dict.fromkeys(GUARDS[kind_of(name)].family for name in judges))
    many = len(judges) > 1
    return (
        f"Judge{'s' * many} {printable(' and '.join(judges))} {'are' if many else 'is'} built on {families}, "
        "the family of the scanned model's own language model, and may share its blind spots; ask a judge of "
        "another family, too."
    )


def how_cut(cut: Cut) -> str:
    """Return how many answers were cut at the length limit, in words."""
    limit = f"at {cut.longest} tokens (max_new_tokens)" if cut.longest else "at the limits of their requests"
    return f"{_percent(cut.share)} % of the answers to harmful requests were cut {limit}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.01 else f"{100 * share:.1g}"
