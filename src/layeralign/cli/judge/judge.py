"""`judge`: verdicts and scores on the answers of a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from layeralign._util.terminal import say
from layeralign._util.text import printable
from layeralign.cli.app import show
from layeralign.cli.options import ClusterOptions


def judge(
    run: Path,
    *,
    judge: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
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
        llama-guard-3, llama-guard-3-1b, llama-guard-3-vision, llama-guard-4, llm:MODEL, refusal. Judges that
        give numbers: vqa, coherence, reward:MODEL, toxicity, perspective. By default the rules: oracle,
        topic, refusal, vqa.
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
    from layeralign.judges.kinds import RULES, check_names, kind_of

    names = judge or list(RULES)
    check_names(names)  # before torch is imported, which takes seconds
    from layeralign.api import judge as run_judge

    kinds = {kind_of(name) for name in names}
    found = run_judge(
        run, names, endpoint=endpoint, rubric=rubric, again=again, retry_invalid=retry_invalid, **asdict(on)
    )
    show(found.summary)
    for name in found.summary.judges:
        for why, count in found.results.invalid[name] if kind_of(name) in kinds else ():
            say(f"{name}: {count} invalid{': ' if why else ''}{why}")
    print(printable(f"run: {run}"))
