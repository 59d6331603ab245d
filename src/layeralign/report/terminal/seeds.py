"""Runs that differ in their seed, for a terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from layeralign._util.text import printable
from layeralign.analysis.cautions import caution
from layeralign.analysis.metrics import NOTHING, Estimate
from layeralign.analysis.seeds import ExitSeeds, Seeds, Spread
from layeralign.report.asr import Asr, asr_of, ends, span
from layeralign.report.terminal.summary import asr_name

_ALSO = (("refuses\nborderline", "over_refusal"), ("coherent", "coherence"), ("utility", "utility"))


def table(found: Seeds) -> Table:
    """Return the ASR of every exit in percent (mean, interval, each run), and mean ± sd of other metrics."""
    runs, names = len(found.runs), ", ".join(printable(run, 40) for run in found.runs)
    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"{_cautions(found)}{runs} runs: {names}: ASR: {printable(found.asr_means)}", "bold"),
        title_justify="left",
        caption=f"Percent. * default exit. Mean ± standard deviation over {runs} runs; 95 %: of the mean of "
        f"all such runs on these cases, Student's t with {runs - 1} degrees of freedom; – : all are alike."
        f"{_left_open(found)}",
        caption_justify="left",
    )
    shown = [(head, name) for head, name in _ALSO if any(exit.estimates[name] for exit in found.exits)]
    for head in ("exit", f"{asr_name(found)} %", "95 %", "each run", *(head for head, _ in shown)):
        made.add_column(head, justify="right", no_wrap=True)
    for exit in found.exits:
        cells = [_mean(exit.estimates[name]) for _, name in shown]
        mark = "*" if exit.default else " "
        asr = _asr(found.asr_judge, exit)
        made.add_row(f"{exit.name}{mark}", *asr, *cells, style="bold" if exit.default else "")
    return made


def _cautions(found: Seeds) -> str:
    """Return the cautions of all runs, each with its run's name."""
    said = zip(found.runs, map(caution, found.summaries), strict=True)
    return "".join(f"{printable(run, 40)}: {what}" for run, what in said if what)


def _left_open(found: Seeds) -> str:
    """Return the explanation of a range; empty if there is no range."""
    each = (asr for exit in found.exits for asr in _each(found.asr_judge, exit))
    if not any(asr.open for asr in each if asr):
        return ""
    return (
        " 12–31: ASR if the answers that could not be judged were all safe – all unsafe; over 2 % were not."
    )


def _each(judge: str, exit: ExitSeeds) -> list[Asr | None]:
    """Return the ASR of each run."""
    invalid = exit.estimates["invalid"]
    return [asr_of(judge, _of_run(exit, run)) for run in range(len(invalid.values) if invalid else 0)]


def _asr(judge: str, exit: ExitSeeds) -> list[str]:
    """Return mean, interval and each run's ASR; ranges if a run has too many invalid answers."""
    each = _each(judge, exit)
    shown = " ".join(map(span, each))
    best, worst = exit.estimates["asr_best_case"], exit.estimates["asr_worst_case"]
    if best and worst and any(asr.open for asr in each if asr):
        mean = Asr(best.mean, worst.mean, best.low, worst.high, 0, 0.0)
        return [span(mean, lambda share: f"{100 * share:.1f}"), ends(mean, between="–") or "–", shown]
    found = exit.estimates["asr"]
    if found is None:
        return ["–"] * 3
    mean = Asr(found.mean, found.mean, found.low, found.high, 0, 0.0)
    return [_mean(found), ends(mean, between="–") or "–", shown]


def _of_run(exit: ExitSeeds, run: int) -> dict[str, Estimate]:
    found = exit.estimates.items()
    return {name: Estimate(s.values[run], 0, None, None, "") if s else NOTHING for name, s in found}


def _mean(spread: Spread | None) -> str:
    return "–" if spread is None else f"{100 * spread.mean:.1f} ± {100 * spread.sd:.1f}"
