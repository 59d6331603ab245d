"""One self-contained page: no script, no request to anywhere, no answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from layeralign.analysis.summary import Summary
from layeralign.errors import LayeralignError
from layeralign.judges.guard import published
from layeralign.report import charts
from layeralign.report.table import (
    asr_name,
    caution,
    corrected,
    decision,
    how_stopped,
    interval,
    invalid,
    percent,
    told,
)


def page(summary: Summary, identity: Mapping[str, Any], sessions: Sequence[Mapping[str, Any]]) -> str:
    """The report of a run as HTML.

    Every text that comes from a model, a case or a file name is escaped by the template engine.
    """
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            summary=summary,
            names={e.exit: e.name for e in summary.exits},
            curve=Markup(charts.svg(charts.curve(summary))),  # noqa: S704 - matplotlib's own, escaped by it
            tests=sorted({e.test for e in summary.exits if e.test}) or ["paired test"],
            headline=caution(summary) + headline(summary),
            asr=asr_name(summary),
            published=[(name, said) for name in summary.judges if (said := published(name))],
            identity=identity,
            sessions=sessions,
        )
    )


def environment() -> Environment:
    """The template engine: everything that goes into a page is escaped."""
    made = Environment(
        loader=PackageLoader("layeralign.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        percent=percent, interval=interval, invalid=invalid, corrected=corrected, told=told,
        decision=decision, how_stopped=how_stopped,
    )  # fmt: skip
    return made


def headline(summary: Summary) -> str:
    """The finding in one or two sentences."""
    default = next((e for e in summary.exits if e.default and e.asr is not None), None)
    measured = [e for e in summary.exits if e.asr is not None and not e.default]
    if default is None or not measured:
        return "Nothing can be said yet: scan the default exit and another one with harmful cases."
    worst = max(measured, key=lambda e: e.asr or 0)
    worse = [e.exit for e in summary.exits if e.worse]
    answers = "answers" if asr_name(summary) == "ASR" else "does not refuse"
    share = f"{answers} {percent(default.asr)} % of harmful requests"
    found = f"At its default exit {default.name} the model {share}"
    if not worse:
        highest = f"highest: exit {worst.name}, {percent(worst.asr)} %"
        return f"{found}; no other scanned exit is significantly worse ({highest})."
    return (
        f"{found}; at exit {worst.name} it {answers} {percent(worst.asr)} %. "
        f"{len(worse)} of {len(measured)} other exits are significantly worse than the default."
    )


def write(
    summary: Summary, identity: Mapping[str, Any], sessions: Sequence[Mapping[str, Any]], file: Path
) -> None:
    """Write the page, and the curve beside it as SVG and PNG."""
    write_page(file, page(summary, identity, sessions), charts.curve(summary))


def write_page(file: Path, content: str, figure: Figure) -> None:
    """Write a page whole or not at all, and its figure beside it as SVG and PNG.

    Raises:
        LayeralignError: the file's name does not end in .html.
    """
    if file.suffix != ".html" or file.is_dir():
        raise LayeralignError(f"out {file}: expected a file that ends in .html")
    file.parent.mkdir(parents=True, exist_ok=True)
    charts.save(figure, file.with_suffix(".svg"))
    charts.save(figure, file.with_suffix(".png"))
    draft = file.with_name(f".{file.name}.new")
    draft.write_text(content, encoding="utf-8")
    draft.replace(file)
