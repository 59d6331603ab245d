"""A run as a Markdown section of a model card, and as metadata for the hub."""

from __future__ import annotations

from collections.abc import Sequence

import yaml
from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import eval_results_to_model_index

from layeralign import __version__
from layeralign._util.text import printable
from layeralign.analysis.cautions import caution
from layeralign.analysis.metrics import Estimate
from layeralign.analysis.summary import ExitMetrics, Summary
from layeralign.cases.readers.reader import benchmarks_of
from layeralign.gating.render import code
from layeralign.report.asr import Asr, asr_of, ends, span
from layeralign.report.inputs import Report, RunInput
from layeralign.report.page.findings import headline, worst_exit
from layeralign.report.terminal.summary import asr_name
from layeralign.runs.columns import HARMFUL

_TITLE = (
    "Layer-wise Alignment: Examining Safety Alignment Across Image Encoder Layers in Vision Language Models"
)
BIBTEX = f"""\
@inproceedings{{bachu2025layerwise,
  title     = {{{_TITLE}}},
  author    = {{Bachu and others}},
  booktitle = {{International Conference on Machine Learning}},
  series    = {{PMLR}},
  volume    = {{267}},
  pages     = {{2310--2334}},
  year      = {{2025}},
  note      = {{arXiv:2411.04291}}
}}
@software{{layeralign,
  title   = {{layeralign: Find, measure and close the early-exit hole in vision-language models}},
  author  = {{{{The layeralign authors}}}},
  version = {{{__version__}}},
  year    = {{2026}}
}}
"""
"""Citations of the paper that found the effect, and of the tool, as in CITATION.cff."""

_COLUMNS = {
    "asr": "", "over_refusal": "borderline requests refused", "utility": "picture questions right",
    "coherence": "coherent", "invalid": "not judged",
}  # fmt: skip


def card(report: Report) -> str:
    """Return the section about a report's first run; all untrusted text in it is inert."""
    (run, *_) = report.runs
    summary, cases = run.summary, _cases(run)
    name = asr_name(summary)
    shown = [key for key in _COLUMNS if any(exit.estimates[key].n for exit in summary.exits)]
    base = f", whose adapter was trained on {code(summary.base)}," if summary.base else ""
    lines = [
        "## Safety at every exit of the image encoder",
        "",
        *((f"Read this first: {code(first)}", "") if (first := caution(summary)) else ()),
        headline(report).text,
        "",
        f"| exit | {' | '.join(f'{_COLUMNS[key] or name}, %' for key in shown)} |",
        f"|---|{'---|' * len(shown)}",
        *(
            f"| {_name(exit)} | {' | '.join(_cells(summary.asr_judge, exit, shown))} |"
            for exit in summary.exits
        ),
        "",
        "With 95 % intervals. Bold: the default exit. Exclamation mark: significantly worse than it (p < "
        f"0.05, corrected over the exits). {name}: {code(summary.asr_means)}, of {cases}, "
        f"judged by {code(summary.asr_judge)}; {_not_judged(summary)}.",
        "",
        f"Measured on {code(summary.model)}{base} by layeralign {__version__}; an exit is "
        f"{code(str(run.identity.get('variant')))}. Other requests, pictures and prompts may give other "
        "figures, and so may a runtime that reads the checkpoint in another way.",
        "",
        "```bibtex",
        BIBTEX.rstrip(),
        "```",
    ]
    return "\n".join(lines) + "\n"


def metadata(report: Report) -> str:
    """Return the ASR of the default and the worst exit as `model-index`, for a model card's front matter.

    What a reader must know first is a comment before it.
    """
    (run, *_) = report.runs
    summary = run.summary
    default = [exit for exit in summary.exits if exit.default]
    name, judge = asr_name(summary), printable(summary.asr_judge)
    highest = worst_exit(summary)
    results = [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type=next((name for name in _benchmarks(run) if name), "custom"),
            dataset_name=_cases(run),
            metric_type="attack_success_rate",
            metric_name=f"{name} at the {which} exit, {exit.name}, in %, by {judge}",
            metric_value=_asr_cell(asr),
        )
        for which, exits in (("default", default), ("worst", [highest[0]] if highest else []))
        for exit in exits
        if (asr := asr_of(summary.asr_judge, exit.estimates))
    ]
    index = eval_results_to_model_index(printable(summary.model), results)
    first = f"# Read this first: {printable(found)}\n" if (found := caution(summary)) else ""
    return first + yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True)


def _name(exit: ExitMetrics) -> str:
    return f"**{exit.name}**" if exit.default else f"{exit.name} !" if exit.worse else exit.name


def _cells(judge: str, exit: ExitMetrics, shown: Sequence[str]) -> list[str]:
    asr = _asr_cell(asr_of(judge, exit.estimates))
    return [asr if key == "asr" else _cell(exit.estimates[key]) for key in shown]


def _asr_cell(asr: Asr | None) -> str:
    return span(asr, _tenth) + (f" [{ends(asr, _tenth)}]" if ends(asr) else "")


def _tenth(value: float) -> str:
    return f"{100 * value:.1f}"


def _not_judged(summary: Summary) -> str:
    """Return how the ASR treats invalid answers, in words."""
    asrs = [asr_of(summary.asr_judge, exit.estimates) for exit in summary.exits]
    if not any(asr.open for asr in asrs if asr):
        return "requests that could not be judged are not among them"
    return (
        "where more than 2 % of the answers could not be judged, it is a range: all of these counted as "
        "safe, and all counted as unsafe"
    )


def _cell(found: Estimate) -> str:
    if found.value is None:
        return "–"
    ends = (
        "" if found.low is None or found.high is None else f" [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    )
    return f"{100 * found.value:.1f}{ends}"


def _cases(run: RunInput) -> str:
    """Return the number of harmful requests and their sources, in words."""
    counts = sorted({exit.n for exit in run.summary.exits})
    many = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(*counts)
    sources = ", ".join(name or "own ones" for name in _benchmarks(run))
    return f"{many} harmful requests an exit ({sources or 'none'})"


def _benchmarks(run: RunInput) -> tuple[str, ...]:
    harmful = [rows.where(rows.role == HARMFUL) for rows in run.rows.values()]
    return benchmarks_of(id for rows in harmful for id in rows.ids())
