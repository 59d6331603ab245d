"""Two runs in the layout of the paper's Table 2, with the paper's numbers if the model is the same.

Bachu et al., Layer-wise Alignment, ICML 2025 (arXiv 2411.04291v2), Table 2: LLaVA-1.5, original → aligned.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from layeralign._util.text import printable
from layeralign.analysis.compare import ALL, Comparison, GroupChange
from layeralign.analysis.summary import Summary
from layeralign.report.asr import before_after
from layeralign.report.terminal.comparison import asr_arrow, asr_delta
from layeralign.report.terminal.summary import asr_name

Pair = tuple[float, float]
"""Before and after."""
GROUPS = ("early", "middle", "late", ALL)
PAPER: dict[str, dict[str, tuple[Pair, Pair, Pair]]] = {
    "CP": {
        "early": ((75.38, 45.15), (8.24, 4.88), (0.57, 0.62)),
        "middle": ((70.00, 47.50), (12.90, 6.63), (-0.34, 0.46)),
        "late": ((48.50, 21.25), (11.00, 7.23), (-0.52, 0.90)),
        ALL: ((64.62, 37.96), (10.71, 6.24), (-0.09, 0.66)),
    },
    "MR": {
        "early": ((53.79, 18.40), (9.03, 5.48), (0.23, 0.46)),
        "middle": ((49.33, 9.57), (8.39, 5.38), (-0.54, 0.27)),
        "late": ((48.62, 3.53), (6.34, 4.72), (-0.72, 0.20)),
        ALL: ((50.58, 10.50), (7.92, 5.19), (-0.34, 0.31)),
    },
    "AC": {
        "early": ((83.33, 67.89), (7.01, 5.21), (0.49, 0.54)),
        "middle": ((53.53, 37.78), (5.62, 4.43), (-0.28, 0.45)),
        "late": ((51.20, 21.60), (6.01, 5.14), (-0.83, 0.47)),
        ALL: ((62.68, 42.42), (6.21, 4.92), (-0.20, 0.49)),
    },
}
"""Test set -> group -> AASR in percent, ATS, ATR."""
_SETS = {
    "pairs": (
        "CP",
        "these cases are prompts × pictures, as its CP, whose prompts its main text does not name",
    ),
    "advbench": ("AC", "these cases are AdvBench, as its AC, whose pictures its main text does not name"),
    "jailbreakv-mini": ("MR", "these cases are its MR, the mini set of JailBreakV-28K"),
}
"""Benchmark -> the paper's test set, and a note on how closely they match."""


def of_the_paper(comparison: Comparison) -> bool:
    """Return whether the model is the paper's LLaVA-1.5: its family, with an encoder of 24 blocks."""
    return comparison.family == "llava" and comparison.before.layers == 24


def table(comparison: Comparison) -> Table:
    """Return AASR, ATS and ATR of each group, before → after, next to the paper's numbers."""
    made = Table(box=box.SIMPLE_HEAD, title=Text("As the paper's Table 2", "bold"), title_justify="left")
    sets = _sets(comparison)
    for head in ("", "group", "before → after", "Δ [95 %]", *(f"paper, {name}" for name in sets)):
        made.add_column(head, justify="left" if head in ("", "group") else "right", no_wrap=True)
    known = {group.group: group for group in comparison.groups}
    for at, name in enumerate(("AASR % ↓", "ATS ↓", "ATR ↑")):
        for group in GROUPS:
            for whose, here in _ours(at, known.get(group), comparison.before):
                theirs = (_arrow(PAPER[one][group][at]) for one in sets)
                made.add_row(Text(f"{name}{whose}"), group, *here, *theirs, end_section=group == ALL)
    return made


def _sets(comparison: Comparison) -> list[str]:
    """Return the paper's test sets to show: the set of these cases, or all sets."""
    if not of_the_paper(comparison):
        return []
    found = [_SETS[name][0] for name in comparison.benchmarks if name in _SETS]
    return found if len(comparison.benchmarks) == len(found) == 1 else list(PAPER)


def _ours(at: int, group: GroupChange | None, before: Summary) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield (judge, (before → after, change)) of the AASR (0), ATS (1) or ATR (2), for each judge."""
    if group is None:
        return
    if at == 0:
        if before_after(before.asr_judge, group):
            name = asr_name(before)
            shown = asr_arrow(before.asr_judge, group, _hundredth), asr_delta(before.asr_judge, group, 2, 2)
            yield "" if name == "ASR" else f" ({name})", shown
        return
    measure, scale = (("toxicity", 100), ("reward", 1))[at - 1]
    for score in group.scores:
        if score.measure == measure and score.kind == "harmful":
            yield (
                f" ({printable(score.judge, 40)})",
                _cells(score.before, score.after, score.low, score.high, scale),
            )


def _cells(
    before: float, after: float, low: float | None, high: float | None, scale: float
) -> tuple[str, str]:
    difference = f"{scale * (after - before):+.2f}"
    if low is not None and high is not None:
        difference += f" [{scale * low:+.2f}, {scale * high:+.2f}]"
    return _arrow((scale * before, scale * after)), difference


def _hundredth(share: float) -> str:
    return f"{100 * share:.2f}"


def _arrow(pair: Pair) -> str:
    return f"{pair[0]:.2f} → {pair[1]:.2f}"


def notes(comparison: Comparison) -> list[str]:
    """Return the cautions that belong to the paper's numbers."""
    if not of_the_paper(comparison):
        return []
    told = [
        "The paper's numbers are of its own cases, judges and training; only with the same cases and judges "
        "can ours be compared with them"
    ]
    (first, *others) = comparison.benchmarks or ("",)
    if others or first not in _SETS:
        told.append("these cases are none of its test sets CP, MR and AC: not comparable")
    else:
        told.append(_SETS[first][1])
    if not comparison.before.asr_judge.startswith("llama-guard"):
        told.append(f"the ASR is by {printable(comparison.before.asr_judge, 60)}, the paper's by Llama Guard")
    return told
