"""One self-contained page: it opens from disk, makes no requests, and shows untrusted text as plain text."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from layeralign._util import files
from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.report.asr import TOO_FEW, asr_of, change_of, ends, span, text, too_few
from layeralign.report.charts.metrics import scores
from layeralign.report.charts.series import harmful_categories, series
from layeralign.report.charts.tradeoff import savings
from layeralign.report.inputs import Report, RunInput
from layeralign.report.page import findings as words
from layeralign.report.page.example import example
from layeralign.report.page.explorer import packed
from layeralign.report.terminal.comparison import asr_arrow, differences, left_open, ordered, regressions
from layeralign.report.terminal.judges import MAJORITY
from layeralign.report.terminal.summary import (
    asr_name,
    corrected,
    decision,
    how_open,
    how_stopped,
    invalid,
    p_worse,
    percent,
    told,
)

_LIBRARIES = ("vendor/d3.min.js", "vendor/plot.min.js")
_OURS = (
    "base.js",
    "curve.js",
    "categories.js",
    "tradeoff.js",
    "controls.js",
    "changes.js",
    "training.js",
    "cases.js",
    "main.js",
)
_PLOTS_STYLE = """:where(.plot) {
  --plot-background: white;
  display: block;
  height: auto;
  height: intrinsic;
  max-width: 100%;
}
:where(.plot text),
:where(.plot tspan) {
  white-space: pre;
}"""
"""The style element that Observable Plot inserts into each of its charts."""


def page(report: Report, *, with_answers: bool = False, notes: Sequence[tuple[str, str]] = ()) -> str:
    """Return the report as HTML.

    Args:
        report: from `layeralign.report.inputs.gather`.
        with_answers: whether to include prompts and answers; they are hidden until the reader shows them.
        notes: (name, value) lines about the report's origin, in addition to the records of the runs.
    """
    style = _static("style.css")
    scripts = [*map(_static, _LIBRARIES), "\n".join(map(_static, _OURS))]
    drawn, shown = series(report), example(report.runs[0])
    cases = packed(report, with_answers=with_answers)
    return _environment().get_template("page.html.j2").render(
        report=report,
        first=report.runs[0],
        many=len(report.runs) > 1,
        headline=words.headline(report),
        warnings=words.warnings(report),
        not_measured=words.not_measured(report),
        notes=notes,
        drawn=drawn,
        costed=any(savings(run) for run in drawn["runs"]),
        with_answers=with_answers,
        example=shown,
        policy=_policy([style, _PLOTS_STYLE], scripts, pictures=bool(cases["pictures"] or shown)),
        style=Markup(style),  # noqa: S704 - our own file
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - our own and vendored files
        series=_embedded(drawn),
        rows=_embedded(cases),
        licences=escape(_static("vendor/LICENSES.txt")),
    )  # fmt: skip


def write(
    report: Report, file: Path, *, with_answers: bool = False, notes: Sequence[tuple[str, str]] = ()
) -> None:
    """Write the page atomically.

    Raises:
        LayeralignError: the file's name does not end in .html.
    """
    if file.suffix != ".html" or file.is_dir():
        raise LayeralignError(f"out {file}: expected a file that ends in .html")
    content = page(report, with_answers=with_answers, notes=notes)
    files.write(file, content, private=with_answers)


def _environment() -> Environment:
    """Return the template engine, which makes all inserted text printable and escapes it."""
    made = Environment(
        loader=PackageLoader("layeralign.report", "static"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        percent=percent,
        invalid=invalid,
        corrected=corrected,
        told=told,
        share=words.share,
        decision=decision,
        how_stopped=how_stopped,
        p_worse=p_worse,
        how_open=how_open,
    )
    made.globals.update(harmful_categories=harmful_categories)
    made.globals.update(ordered=ordered, regressions=regressions, differences=differences)
    made.globals.update(asr_of=asr_of, asr_span=span, asr_ends=ends, asr_text=text)
    made.globals.update(asr_change=change_of, asr_arrow=asr_arrow, left_open=left_open)
    made.globals.update(too_few=too_few, TOO_FEW=TOO_FEW, MAJORITY=MAJORITY)
    made.globals.update(worst_exit=words.worst_exit, mean_asr=words.mean_asr)
    made.globals.update(asr_name=asr_name, errors=words.errors, tests=_tests, scores_of=scores)
    return made


def _tests(run: RunInput) -> list[str]:
    """Return the tests that mark an exit of this run as worse than the default exit."""
    return sorted({exit.test for exit in run.summary.exits if exit.test}) or ["a paired test"]


def _shown(value: object) -> object:
    """Make a text printable on one line; blanks at its ends stay."""
    if type(value) is not str:  # numbers, and our own markup
        return value
    text = printable(value).replace(" %", "\N{NO-BREAK SPACE}%")
    return f"{' ' * value[:1].isspace()}{text}{' ' * value[-1:].isspace()}"


def _static(name: str) -> str:
    return resources.files("layeralign.report").joinpath("static", name).read_text(encoding="utf-8")


def _embedded(data: Any) -> Markup:
    """Return JSON that cannot end its script element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 - no tag can begin or end here


def _policy(styles: Sequence[str], scripts: Sequence[str], *, pictures: bool) -> str:
    """Return the content security policy: only code in this file may run, and nothing may be fetched."""
    allowed = {"style-src": styles, "script-src": scripts}
    parts = [f"{name} {' '.join(map(_hash, texts))}" for name, texts in allowed.items()]
    parts += ["img-src data:"] * pictures
    return "; ".join(["default-src 'none'", *parts, "base-uri 'none'", "form-action 'none'"])


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
