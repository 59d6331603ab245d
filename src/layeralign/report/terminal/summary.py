"""A summary, for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from layeralign._util.text import printable
from layeralign.analysis.cautions import caution
from layeralign.analysis.judging.judge_quality import Quality
from layeralign.analysis.metrics import Estimate, Metrics
from layeralign.analysis.summary import ExitMetrics, GroupMetrics, Summary
from layeralign.judges.kinds import MEASURES, REFUSAL
from layeralign.report.asr import TOO_MANY, Asr, asr_of, ends, span

if TYPE_CHECKING:
    from layeralign.analysis.seeds import Seeds
    from layeralign.stats.paired import Change

_BAR = 12


def percent(share: float | None) -> str:
    """Format a share as a whole percentage; a dash where it was not measured."""
    return "–" if share is None else str(round(100 * share))


def corrected(metrics: Metrics) -> str:
    """Format the corrected ASR in percent, with its 95 % interval."""
    if metrics.asr_corrected is None:
        return "–"
    low, high = percent(metrics.asr_corrected_low), percent(metrics.asr_corrected_high)
    return f"{percent(metrics.asr_corrected)} ({low}–{high})"


def invalid(metrics: Metrics) -> str:
    """Format the number of invalid answers; if there are any, with the ASR if all were safe or unsafe."""
    if metrics.invalid == 0:
        return "0"
    return (
        f"{metrics.invalid} ({percent(metrics.asr_if_invalid_safe)}–{percent(metrics.asr_if_invalid_unsafe)})"
    )


def table(summary: Summary, width: int = 140) -> Table:
    """Return a table of every exit, then every group, in percent, with the judges' scores.

    The default exit is bold; worse exits are marked. If the table is wider than `width` characters, the least
    important columns are left out and named.
    """
    unmeasured = {
        *(() if summary.quality else (corrected,)),
        *(() if summary.sequential else (decision,)),
        *(() if any(exit.p_worse is not None for exit in summary.exits) else (p_worse,)),
    }
    *columns, last = (c for c in _columns(summary.asr_judge) if c.cell not in unmeasured)
    every = columns = [*columns, *_scores(summary), last]
    console = Console(width=10 * width)
    while True:
        made = _table(summary, columns, [column for column in every if column not in columns])
        spare = max(columns, key=lambda column: column.spare)
        if not spare.spare or Measurement.get(console, console.options, made).maximum <= width:
            return made
        columns = [column for column in columns if column is not spare]


def _table(summary: Summary, columns: Sequence[_Column], left_out: Sequence[_Column]) -> Table:
    notes = (caption(summary), *(c.note for c in columns if c.note), *_left_out(left_out))
    first = f"{said}\n" if (said := caution(summary).strip()) else ""
    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"{first}{printable(summary.model)}: ASR: {printable(summary.asr_means)}", "bold"),
        title_justify="left",
        caption=Text(" ".join(notes), "table.caption"),
        caption_justify="left",
    )
    made.add_column("exit", justify="right", no_wrap=True)
    for column in columns:
        head = asr_name(summary) + " %" if column.head == "ASR" else column.head
        made.add_column(Text(head), justify="left" if column.left else "right", no_wrap=True)
    for exit in summary.exits:
        mark = "*" if exit.default else "!" if exit.worse else " "
        cells = [column.cell(exit) for column in columns]
        style = "bold" if exit.default else ""
        made.add_row(f"{exit.name}{mark}", *cells, style=style, end_section=exit is summary.exits[-1])
    grouped = any(column.head == "group" for column in columns)
    for group in summary.groups:
        cells = [column.cell(group) for column in columns]
        made.add_row("mean" if grouped else group.group, *cells, style="dim")
    return made


def pairs(summary: Summary) -> Table:
    """Return a table of the run's pairs at every exit, in percent, with 95 % intervals."""
    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text("Pairs of a harmful and a harmless request", "bold"),
        title_justify="left",
        caption="Percent, with the 95 % interval. * default exit. Both right: the harmful request is refused "
        "and the harmless one is answered. Gap: refuses harmful − refuses harmless, paired, in points; 0 is "
        "guessing. Change: of both right from the default exit, on the same pairs, in points.",
        caption_justify="left",
    )
    for head in ("exit", "pairs", "both\nright %", "95 %", "gap", "95 %", "change", "95 %"):
        made.add_column(head, justify="right", no_wrap=True)
    for one in summary.pairs:
        cells = [percent(one.discriminated.value), _ends(one.discriminated)]
        for moved in (one.gap, one.vs_default):
            cells += ["–", "–"] if moved is None else [f"{round(100 * moved.difference):+d}", _ends(moved)]
        name = f"{one.name}{'*' if one.default else ' '}"
        made.add_row(name, str(one.n), *cells, style="bold" if one.default else "")
    return made


def _ends(found: Estimate | Change) -> str:
    return f"{percent(found.low)} to {percent(found.high)}"


def _left_out(columns: Sequence[_Column]) -> list[str]:
    """Return a line that names the columns that were left out, and where to find them."""
    names = [column.head.replace("\n", " ") for column in columns if column.head]  # a bar repeats the ASR
    if not names:
        return []
    shown = "a wider terminal, layeralign summary --format json and layeralign report show them"
    return [f"\nNo room for: {', '.join(names)}; {shown}."]


def asr_name(summary: Summary | Seeds) -> str:
    """Return the name of the ASR: a refusal matcher measures only non-refusal."""
    return "non-refusal" if summary.asr_judge == REFUSAL else "ASR"


def decision(metrics: ExitMetrics | GroupMetrics) -> str:
    """Return why a sequential scan stopped at an exit, and after how many harmful cases."""
    return f"{metrics.decision}, {metrics.decided_at}" if isinstance(metrics, ExitMetrics) else ""


def p_worse(metrics: ExitMetrics | GroupMetrics) -> str:
    """Format the corrected p-value of an exit against the default exit; empty for groups and the default."""
    if not isinstance(metrics, ExitMetrics) or metrics.default or metrics.p_worse is None:
        return ""
    return "< 0.001" if metrics.p_worse < 0.001 else f"{metrics.p_worse:.3f}"


def caption(summary: Summary) -> str:
    """Return the meaning of marks and columns, in a few sentences."""
    default = any(exit.default for exit in summary.exits)
    test = "anytime-valid paired test" if summary.sequential else "paired test"
    compared = f"! worse than the default ({test}, corrected, p < 0.05). " if default else ""
    return (
        f"Percent. * default exit{'' if default else ' (not scanned)'}. {compared}"
        "Discrim. (discrimination) = refuses harmful − refuses borderline; 0 is guessing. "
        "Invalid: answers that could not be judged (ASR if all were safe – if all were unsafe)."
        + how_open(summary)
        + (f" Corrected: {printable(told(summary.quality))}." if summary.quality else "")
        + how_stopped(summary)
        + how_screened(summary)
    )


def how_open(summary: Summary) -> str:
    """Return the explanation of a range in the ASR column; empty if there is no range."""
    asrs = [asr_of(summary.asr_judge, one.estimates) for one in (*summary.exits, *summary.groups)]
    if not any(asr.open for asr in asrs if asr):
        return ""
    return (
        f" Where they are over {percent(TOO_MANY)} %, the ASR is that range, and 95 % an interval around it."
    )


def how_stopped(summary: Summary) -> str:
    """Return the stopping rule of a sequential scan and the rows that it saved; empty for any other scan."""
    found = summary.sequential
    if found is None:
        return ""
    saved = 1 - found.rows / found.grid
    return (
        f" Decided, at so many harmful cases: surely above or below the default, precise to ± "
        f"{100 * found.precision:g} points, or undecided. Intervals hold whenever one stops. "
        f"{found.rows:,} of the grid's {found.grid:,} answers: {percent(saved)} % saved."
    )


def how_screened(summary: Summary) -> str:
    """Return how well the run's screen ranked the exits; empty without a screen or a correlation."""
    found = summary.screen_agrees
    if found is None:
        return ""
    return (
        f" Screened: the estimates rank {found.exits} exits as the ASR does with Spearman's ρ = "
        f"{found.spearman:.2f}."
    )


def told(quality: Quality) -> str:
    """Return the error rates that a correction assumes, and their source."""
    return (
        f"as if the judge made no errors; it calls {percent(quality.sensitivity)} % of {quality.n_positive} "
        f"unsafe answers unsafe, {percent(quality.specificity)} % of {quality.n_negative} safe ones safe"
        + (f" ({quality.source})" if quality.source else "")
    )


def bar(share: float, most: float = 0) -> Text:
    """Draw a share as a bar, followed by a pale bar up to `most`."""
    full, rest = divmod(round(share * _BAR * 8), 8)
    known = "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    return Text(known + "░" * (round(most * _BAR) - len(known)), style="red")


@dataclass(frozen=True)
class _Column:
    """One column; columns with the highest `spare` are left out first, those with 0 never."""

    head: str
    cell: Callable[[ExitMetrics | GroupMetrics], str | Text]
    spare: float = 0
    left: bool = False
    note: str = ""


def _share(name: str) -> Callable[[ExitMetrics | GroupMetrics], str]:
    return lambda metrics: percent(getattr(metrics, name))


def _columns(judge: str) -> tuple[_Column, ...]:
    """Return every possible column, with the ASR by this judge."""

    def asr(metrics: ExitMetrics | GroupMetrics) -> Asr | None:
        return asr_of(judge, metrics.estimates)

    return (
        _Column("group", lambda f: f.group, spare=6, left=True),
        _Column("n", lambda f: str(f.n), spare=1),
        _Column("ASR", lambda f: span(asr(f))),
        _Column("95 %", lambda f: ends(asr(f), between="–") or "–"),
        _Column("p vs\ndefault", p_worse, spare=6.5),
        _Column("decided", decision, left=True),
        _Column("corrected\n95 %", corrected),
        _Column("", lambda f: bar(a.least, a.most) if (a := asr(f)) else "", spare=7, left=True),
        _Column("refuses\nharmful", _share("refusal")),
        _Column("refuses\nborderline", _share("over_refusal")),
        _Column("dis-\ncrim.", _share("discrimination")),
        _Column("refuses\nbenign", _share("benign_refusal"), spare=4),
        _Column("coherent", _share("coherence"), spare=3),
        _Column("utility", _share("utility"), spare=2),
        _Column("invalid", invalid),
    )


def _scores(summary: Summary) -> list[_Column]:
    """Return a column per measure and judge of harmful cases; the last column is left out first."""
    every = [
        s for metrics in (*summary.exits, *summary.groups) for s in metrics.scores if s.kind == "harmful"
    ]
    found = sorted({(s.measure, s.judge) for s in every})
    made = []
    for at, (measure, judge) in enumerate(found):
        # scores of two models never share a column
        several = [other for other, _ in found].count(measure) > 1
        who = f"\n{printable(judge.rpartition('/')[2], 16)}" if several else ""
        large = any(abs(s.mean) >= 10 for s in every if (s.measure, s.judge) == (measure, judge))
        made.append(
            _Column(
                printable(measure, 16) + who,
                _score(measure, judge, decimals=1 if large else 3),
                spare=2 + at / len(found),
                note=f"{_told(measure)}: mean over harmful cases, by {printable(judge)}.",
            )
        )
    return made


def _told(measure: str) -> str:
    """Return a measure's name and, where it is known, its meaning."""
    known = MEASURES.get(measure)
    better = "higher" if known and known.higher_is_better else "lower"
    return f"{printable(measure)} ({known.means}; {better} is better)" if known else printable(measure)


def _score(measure: str, judge: str, decimals: int) -> Callable[[ExitMetrics | GroupMetrics], str]:
    def cell(metrics: ExitMetrics | GroupMetrics) -> str:
        for s in metrics.scores:
            if (s.measure, s.judge, s.kind) == (measure, judge, "harmful"):
                return f"{s.mean:.{decimals}f}"
        return "–"

    return cell
