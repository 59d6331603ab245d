"""`judge`: verdicts and scores on the answers of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from layeralign._util.text import printable
from layeralign.cli.app import app, show


@app.command
def judge(
    run: Path,
    *,
    judge: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    endpoint: str | None = None,
    again: bool = False,
    retry_invalid: bool = False,
) -> None:
    """Judge the answers of a run; nothing is generated again. Stopped, the same command goes on.

    Parameters
    ----------
    run
        The run's folder.
    judge
        KIND or KIND:MODEL, once or more. With verdicts: oracle (testbed cases only), llama-guard-3,
        llama-guard-3-1b, llama-guard-3-vision, llama-guard-4, refusal. With numbers: vqa, coherence,
        reward:MODEL, toxicity, perspective. By default the rules: oracle, refusal, vqa.
    endpoint
        Base URL of an OpenAI-compatible server that guards are asked of; its key is LAYERALIGN_API_KEY in the
        environment. Without it, models run here. Perspective's key is PERSPECTIVE_API_KEY.
    again
        Forget what these judges said before.
    retry_invalid
        Ask again about what they could not judge.
    """
    from layeralign.api import judge as run_judge
    from layeralign.judges.kinds import RULES, kind_of

    names = judge or list(RULES)
    kinds = {kind_of(name) for name in names}
    found = run_judge(run, names, endpoint=endpoint, again=again, retry_invalid=retry_invalid)
    show(found)
    for name in found.summary.judges:
        for why, count in found.results.invalid[name] if kind_of(name) in kinds else ():
            print(printable(f"{name}: {count} invalid{': ' if why else ''}{why}"))
