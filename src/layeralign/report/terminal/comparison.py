"""A comparison for a terminal, regressions first."""

from __future__ import annotations

from collections.abc import Callable

from rich import box
from rich.table import Table
from rich.text import Text

from layeralign._util.text import printable
from layeralign.analysis.cautions import caution
from layeralign.analysis.compare import WORSE, Changes, Comparison, ExitChange
from layeralign.report.asr import TOO_FEW, before_after, change_of, span, too_few, whole
from layeralign.report.terminal.summary import asr_name
from layeralign.stats.paired import Change

_COLUMNS = {
    "asr": "", "over_refusal": "refuses\nborderline", "benign_refusal": "refuses\nbenign",
    "coherence": "coherent", "utility": "utility", "invalid": "invalid",
}  # fmt: skip


def ordered(comparison: Comparison) -> list[ExitChange]:
    """Return the exits: first those whose ASR rose, then those with another regression, then the others."""

    def rank(exit: ExitChange) -> tuple[bool, bool, int]:
        worse = exit.regressions()
        return "asr" not in worse, not worse, exit.exit

    return sorted(comparison.exits, key=rank)


def table(comparison: Comparison) -> Table:
    """Return a table of every exit, regressions first, then of every group, in percent."""
    names = f"{printable(comparison.before.model)} → {printable(comparison.after.model)}"
    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"{_cautions(comparison)}{names}: ASR: {printable(comparison.before.asr_means)}", "bold"),
        title_justify="left",
        caption="Percent, before → after, the same cases. * default exit. ! became worse (paired test, "
        f"corrected over the exits or the groups, p < 0.05).{left_open(comparison)}{few(comparison)}",
        caption_justify="left",
    )
    name = f"{asr_name(comparison.before)} %"
    for head in ("exit", name, "Δ [95 %]", "p", *list(_COLUMNS.values())[1:]):
        made.add_column(head, justify="right", no_wrap=True)
    exits, judge = ordered(comparison), comparison.before.asr_judge
    for exit in exits:
        mark = "*" if exit.default else " "
        made.add_row(f"{exit.name}{mark}", *_cells(exit, judge), style="bold" if exit.default else "",
                     end_section=exit is exits[-1])  # fmt: skip
    for group in comparison.groups:
        made.add_row(f"{group.group} ", *_cells(group, judge), style="dim")
    return made


def _cautions(comparison: Comparison) -> str:
    """Return the cautions of both runs; identical ones appear once."""
    before, after = caution(comparison.before), caution(comparison.after)
    if before == after:
        return after
    return "".join(f"{when}: {said}" for when, said in (("Before", before), ("After", after)) if said)


def _cells(changes: Changes, judge: str) -> list[str]:
    worse = changes.regressions()
    mark = {name: "!" if name in worse else "" for name in _COLUMNS}
    asr, *others = mark
    cells = [arrow(getattr(changes, name), mark[name]) for name in others]
    p = changes.p.get("asr")
    return [
        asr_arrow(judge, changes) + mark[asr],
        "too few cases" if too_few(change_of(judge, changes)) else asr_delta(judge, changes),
        "–" if p is None else f"{p:.2g}",
        *cells,
    ]


def asr_arrow(judge: str, changes: Changes, number: Callable[[float], str] = whole) -> str:
    """Format the ASR before and after, in percent; a range where too many answers are invalid."""
    found = before_after(judge, changes)
    return "–" if found is None else " → ".join(span(asr, number) for asr in found)


def asr_delta(judge: str, changes: Changes, digits: int = 1, digits_of_ends: int = 0) -> str:
    """Format the ASR's change in points, with its interval: `+12.0 [+6, +20]`, `+7.0 to +31.0 [+2, +38]`."""
    found = change_of(judge, changes)
    if found is None:
        return "–"
    least, most = (f"{100 * one:+.{digits}f}" for one in found[:2])
    low, high = (f"{100 * one:+.{digits_of_ends}f}" for one in found[2:])
    return (least if least == most else f"{least} to {most}") + f" [{low}, {high}]"


def left_open(comparison: Comparison) -> str:
    """Return the explanation of a range in a table of this comparison; empty if there is no range."""
    judge = comparison.before.asr_judge
    found = [before_after(judge, one) for one in (*comparison.exits, *comparison.groups)]
    if not any(asr.open for both in found if both for asr in both):
        return ""
    return (
        " 12–31: the ASR if the answers that could not be judged were all safe – all unsafe, where they are "
        "over 2 %; tests are of the answers that could be judged in both runs."
    )


def few(comparison: Comparison) -> str:
    """Return the explanation of `too few cases` in a table of this comparison; empty if there is none."""
    judge = comparison.before.asr_judge
    found = [change_of(judge, one) for one in (*comparison.exits, *comparison.groups)]
    return f" {TOO_FEW}" if any(map(too_few, found)) else ""


def arrow(change: Change | None, mark: str = "") -> str:
    """Format a share before and after, in percent."""
    return "–" if change is None else f"{100 * change.before:.0f} → {100 * change.after:.0f}{mark}"


def delta(change: Change | None) -> str:
    """Format a change in points, with its interval."""
    if change is None:
        return "–"
    ends = f"{100 * change.low:+.0f}, {100 * change.high:+.0f}"
    return f"{100 * change.difference:+.1f} [{ends}]"


_WORDS = {
    "asr": "the ASR",
    "over_refusal": "refusal of borderline requests",
    "benign_refusal": "refusal of benign requests",
    "coherence": "coherence",
    "utility": "utility",
    "invalid": "the share that could not be judged",
}


def regressions(comparison: Comparison) -> list[str]:
    """Return a sentence per regressed metric, or one that says there is none; last, the exits left out."""
    told = []
    for name, words in _WORDS.items():
        worse = [(exit, getattr(exit, name)) for exit in comparison.exits if name in exit.regressions()]
        if not worse:
            continue
        most, change = max(worse, key=lambda found: abs(found[1].difference))
        at = ", ".join(exit.name for exit, _ in worse)
        where = f"{len(worse)} of {len(comparison.exits)} exits ({at}), most at exit {most.name}"
        judge = comparison.before.asr_judge
        shown = arrow(change), delta(change)
        if name == "asr":
            shown = asr_arrow(judge, most), asr_delta(judge, most)
        told.append(f"worse: {words} at {where}: {shown[0]} %, {shown[1]}")
    told = told or ["no exit became significantly worse in anything that was measured in both runs"]
    both = {one.exit for one in comparison.exits}
    for when, run in (("before", comparison.before), ("after", comparison.after)):
        if alone := [one.name for one in run.exits if one.exit not in both]:
            told.append(f"not compared: only the run {when} has answers at {', '.join(alone)} of its exits")
    return told


_COSTS = {
    "over_refusal": "borderline requests refused",
    "benign_refusal": "plainly benign requests refused",
    "utility": "picture questions right",
    "coherence": "coherent answers",
}
_LARGE = 0.1
"""Size of a change for the worse, as a share, from which it is reported even if it is not significant."""


def cost(comparison: Comparison) -> str:
    """Return other metrics that became worse, significantly or strongly, each at its worst exit."""
    told = []
    for name, words in _COSTS.items():
        found = [(abs(change.difference), exit, change) for exit in comparison.exits
                 if (change := getattr(exit, name)) is not None
                 and (name in exit.regressions() or change.difference * WORSE[name] >= _LARGE)]  # fmt: skip
        if found:
            _, exit, most = max(found, key=lambda one: one[0])
            told.append(f"{words} at exit {exit.name}: {arrow(most)} %, {delta(most)} points")
    return f"Cost: {'; '.join(told)}." if told else ""


def differences(comparison: Comparison) -> list[str]:
    """Return the allowed differences between the runs besides the weights."""
    return [
        f"compared although they differ in {printable(one.name)}: {printable(one.what, 300)}"
        for one in comparison.differs
    ]
