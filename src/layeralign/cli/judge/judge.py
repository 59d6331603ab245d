"""`judge`: verdicts and scores on the answers of a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from layeralign._util.terminal import put, say
from layeralign._util.text import printable
from layeralign.cli.app import show
from layeralign.cli.options import ClusterOptions
from layeralign.errors import LayeralignError

if TYPE_CHECKING:
    from layeralign.report.notebook.runs import Scan


def judge(
    run: Path,
    *,
    judge: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    panel: str | None = None,
    endpoint: str | None = None,
    rubric: str | None = None,
    again: bool = False,
    retry_invalid: bool = False,
    on: ClusterOptions = ClusterOptions(),  # noqa: B008 - immutable
) -> None:
    """Judge the answers of a run; no answer is generated again. A stopped command resumes when repeated.

    Parameters
    ----------
    run
        Folder of the run.
    judge
        Judges, as KIND or KIND:MODEL. Judges that give verdicts: oracle and topic (testbed cases only),
        qwen3guard, qwen3guard-8b, wildguard, nemotron-safety, llama-guard-3, llama-guard-3-1b,
        llama-guard-3-vision, llama-guard-4, harmbench, granite-guardian, llm:MODEL, refusal. Judges that
        give numbers: vqa, coherence, reward:MODEL, toxicity, and perspective (until 2026-12-31). By default
        the rules: oracle, topic, refusal, vqa.
    panel
        Two or more judges that give verdicts, joined by commas, instead of `--judge`. Their agreement, and
        the ASR by their majority and in the worst case, are shown at every exit.
    endpoint
        Base URL of an OpenAI-compatible server that runs the guards or llm:MODEL; LAYERALIGN_API_KEY in the
        environment holds its key. Without it, models run here. PERSPECTIVE_API_KEY holds Perspective's key.
    rubric
        How llm:MODEL asks and how its reply is parsed: `graded`, `yes-no`, or a YAML file of your own.
    again
        Discard the earlier verdicts of these judges.
    retry_invalid
        Judge the rows again whose verdict is invalid.
    """
    from layeralign.judges.kinds import RULES, check_names, check_panel, kind_of

    if panel is not None and judge:
        raise LayeralignError("judge: has both --judge and --panel; expected one of them")
    asked = None if panel is None else [name.strip() for name in panel.split(",")]
    names = asked or judge or list(RULES)
    check_names(names)  # before torch is imported, which takes seconds
    if asked:
        check_panel(asked)
    from layeralign.api import judge as run_judge

    kinds = {kind_of(name) for name in names}
    found = run_judge(
        run, names, endpoint=endpoint, rubric=rubric, again=again, retry_invalid=retry_invalid, **asdict(on)
    )
    show(found.summary)
    if asked:
        _show_panel(found, asked, endpoint, rubric)
    for name in found.summary.judges:
        for why, count in found.results.invalid[name] if kind_of(name) in kinds else ():
            say(f"{name}: {count} invalid{': ' if why else ''}{why}")
    print(printable(f"run: {run}"))


def _show_panel(found: Scan, asked: list[str], endpoint: str | None, rubric: str | None) -> None:
    """Print the agreement of some judges of a run, and the ASR by all of them."""
    from layeralign.analysis.judging.panel import panel
    from layeralign.judges.registry import judges
    from layeralign.report.terminal import judges as tables

    names = [one.name for one in judges(asked, endpoint, rubric)]
    put(tables.panel(panel(found.results, names)))
    put(tables.agreement([pair for pair in found.summary.agreement if {pair.one, pair.other} <= {*names}]))
