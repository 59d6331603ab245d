"""The plotted metrics of a run: shares and scores at every exit, of all cases and of each category."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from layeralign._util.text import printable
from layeralign.analysis import metrics as analysis_metrics
from layeralign.analysis.metrics import Estimate, Score
from layeralign.analysis.summary import ALPHA
from layeralign.judges.kinds import MEASURES
from layeralign.report.inputs import Report, RunInput
from layeralign.report.terminal.summary import asr_name

Better = Literal["low", "high", ""]


@dataclass(frozen=True)
class Metric:
    """One curve.

    Attributes:
        key: the name in a summary's `estimates`; for a score, its judge, measure and kind of case.
        label: the title of a chart.
        short: a short title.
        better: whether `low` or `high` values are better; empty if unknown.
        share: whether it is a share or a difference of shares, shown in percent.
    """

    key: str
    label: str
    short: str
    better: Better = ""
    share: bool = True


ASR = Metric("asr", "Harmful requests answered (ASR)", "ASR", "low")
NON_REFUSAL = Metric("asr", "Harmful requests not refused", "not refused", "low")
SHARES = (
    ASR,
    Metric("over_refusal", "Borderline requests refused", "borderline refused", "low"),
    Metric("utility", "Picture questions answered rightly", "utility", "high"),
    Metric("refusal", "Harmful requests refused", "harmful refused", "high"),
    Metric("discrimination", "Harmful refused minus borderline refused", "discrimination", "high"),
    Metric("benign_refusal", "Plainly benign requests refused", "benign refused", "low"),
    Metric("coherence", "Coherent answers", "coherent", "high"),
    Metric("asr_worst_case", "ASR if all invalid answers were unsafe", "ASR, worst case", "low"),
    Metric("asr_corrected", "ASR without the judge's errors", "ASR, corrected", "low"),
    Metric("asr_coherent", "Harmful requests answered coherently", "ASR, coherent", "low"),
    Metric("invalid", "Harmful requests whose answers could not be judged", "invalid", "low"),
)


def metrics(report: Report) -> list[Metric]:
    """Return every metric that at least one run of the report has measured."""
    measured = [exit for run in report.runs for exit in run.summary.exits]
    known = {key for exit in measured for key, e in exit.estimates.items() if e.value is not None}
    if all(asr_name(run.summary) != "ASR" for run in report.runs):
        shares = [NON_REFUSAL, *SHARES[1:]]
    else:
        shares = list(SHARES)
    scored = sorted({(s.measure, s.judge, s.kind) for exit in measured for s in exit.scores})
    return [metric for metric in shares if metric.key in known] + [_score(*names) for names in scored]


def _score(measure: str, judge: str, kind: str) -> Metric:
    known = MEASURES.get(measure)
    means = f" ({known.means})" if known else ""
    better: Better = "" if known is None else "high" if known.higher_is_better else "low"
    label = f"{measure}{means}, {kind} cases, by {judge}"
    return Metric(score_key(judge, measure, kind), label, f"{measure}, {kind}", better, share=False)


def score_key(judge: str, measure: str, kind: str) -> str:
    """Return the key of a score."""
    return printable(f"{judge}/{measure}/{kind}")


def scores(run: RunInput) -> dict[tuple[str, str, str], dict[int, Score]]:
    """Map judge, measure and kind of case to the mean score at each exit."""
    found: dict[tuple[str, str, str], dict[int, Score]] = {}
    for exit in run.summary.exits:
        for score in exit.scores:
            found.setdefault((score.judge, score.measure, score.kind), {})[exit.exit] = score
    return found


def by_exit(run: RunInput) -> dict[int, dict[str, Estimate]]:
    """Map each exit to its shares and mean scores, by `Metric.key`."""
    return {exit.exit: dict(exit.estimates) | _means(exit.scores) for exit in run.summary.exits}


def _means(found: Iterable[Score]) -> dict[str, Estimate]:
    return {
        score_key(s.judge, s.measure, s.kind): Estimate(s.mean, s.n, s.low, s.high, s.method) for s in found
    }


@cache
def category(name: str, kind: str) -> str:
    """Return the printable name of a case's category; its kind where it has none."""
    return printable(name or kind, 80)


def by_category(run: RunInput) -> dict[str, dict[int, dict[str, Estimate]]]:
    """Map category and exit to shares and mean scores, by `Metric.key`; categories are sorted."""
    alpha = ALPHA if run.summary.sequential else None
    cases = run.results.columns.cases
    named = np.array([category(*one) for one in zip(cases.category, cases.kind, strict=True)], dtype=object)
    found: dict[str, dict[int, dict[str, Estimate]]] = {name: {} for name in sorted({*named})}
    for exit, rows in sorted(run.rows.items()):
        own = named[rows.case]
        for name, exits in found.items():
            some = rows.where(own == name)
            if len(some):
                exits[exit] = analysis_metrics.estimates(some, run.summary.quality, alpha) | _means(
                    analysis_metrics.scores(some, fixed=alpha is None)
                )
    return {name: exits for name, exits in found.items() if exits}
