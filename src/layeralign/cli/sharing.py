"""`card`: a run as part of a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from layeralign.cli.app import app


@app.command
def card(run: Path, *, format: Literal["markdown", "yaml"] = "markdown", judge: str | None = None) -> None:
    """Print a section about a run for a model card on the hub, with how to cite it; no answers are in it.

    Parameters
    ----------
    run
        The run's folder.
    format
        The section in Markdown, or the hub's model-index in YAML, for the card's front matter.
    judge
        Whose verdicts make the ASR; by default the most trusted that has judged.
    """
    from layeralign.report import card as report
    from layeralign.report.inputs import gather

    found = gather([run], judge)
    print(report.metadata(found) if format == "yaml" else report.card(found), end="")
