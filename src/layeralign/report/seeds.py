"""Several runs that differ in their seed, in the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from layeralign.analysis.seeds import ExitSeeds, Seeds, Spread
from layeralign.report.table import asr_name, percent
from layeralign.text import printable

_ALSO = (("refuses\nborderline", "over_refusal"), ("coherent", "coherence"), ("utility", "utility"))


def table(found: Seeds) -> Table:
    """Every exit's ASR in percent: mean, interval and each run's; of the rest mean ± standard deviation."""
    runs, names = len(found.runs), ", ".join(printable(run, 40) for run in found.runs)
    made = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"{runs} runs: {names}: ASR: {printable(found.asr_means)}", "bold"),
        title_justify="left",
        caption=f"Percent. * default exit. Mean ± standard deviation over {runs} runs; 95 %: of the mean of "
        f"all such runs on these cases, Student's t with {runs - 1} degrees of freedom; – : all are alike.",
        caption_justify="left",
    )
    shown = [(head, name) for head, name in _ALSO if any(exit.estimates[name] for exit in found.exits)]
    for head in ("exit", f"{asr_name(found)} %", "95 %", "each run", *(head for head, _ in shown)):
        made.add_column(head, justify="right", no_wrap=True)
    for exit in found.exits:
        cells = [_mean(exit.estimates[name]) for _, name in shown]
        mark = "*" if exit.default else " "
        made.add_row(f"{exit.name}{mark}", *_asr(exit), *cells, style="bold" if exit.default else "")
    return made


def _asr(exit: ExitSeeds) -> list[str]:
    asr = exit.estimates["asr"]
    if asr is None:
        return ["–"] * 3
    each = " ".join(f"{100 * value:.0f}" for value in asr.values)
    return [_mean(asr), "–" if asr.low is None else f"{percent(asr.low)}–{percent(asr.high)}", each]


def _mean(spread: Spread | None) -> str:
    return "–" if spread is None else f"{100 * spread.mean:.1f} ± {100 * spread.sd:.1f}"
