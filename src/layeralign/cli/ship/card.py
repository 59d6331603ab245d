"""`card`: a run as a section of a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Literal


def card(run: Path, *, format: Literal["markdown", "yaml"] = "markdown", judge: str | None = None) -> None:
    """Print a section about a run for a model card on the hub; it holds no answers.

    Parameters
    ----------
    run
        Folder of the run.
    format
        Section in Markdown, or the hub's model-index in YAML, for the front matter of the card.
    judge
        Judge of the ASR; by default the most trusted judge of the run.
    """
    from layeralign.report import card as report
    from layeralign.report.inputs import gather

    found = gather([run], judge)
    print(report.metadata(found) if format == "yaml" else report.card(found), end="")
