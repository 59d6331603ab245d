"""The demo: scan, align, scan again and report, on the bundled model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from layeralign._util import files
from layeralign._util.progress import phase
from layeralign.api import align, compare, load, scan
from layeralign.report.inputs import gather
from layeralign.report.notebook.runs import Comparison, Scan
from layeralign.report.page import page
from layeralign.training.settings import AlignSettings

TOKENS = 24
"""Length limit of answers; the testbed's right answers have at most 18 tokens."""
STEPS = 60
TRAINED_ON = 4000
"""Number of training cases, from the train split."""


def settings(steps: int = STEPS, seed: int = 0) -> AlignSettings:
    """All-exit L-PPO on the testbed, chosen on its dev split; see docs/align.md.

    The learning rate suits a model of 2.5 M parameters. The temperature makes a nearly deterministic policy
    explore.
    """
    return AlignSettings(
        exits="all",
        mix="worst",
        steps=steps,
        lr=1e-3,
        epochs=2,
        temperature=1.4,
        max_new_tokens=TOKENS,
        seed=seed,
    )


def demo(out: str | Path = "out/demo", cases: int = 1200, steps: int = STEPS) -> Comparison:
    """Scan the bundled model at every exit, align it, scan it again, and write a page.

    Args:
        out: folder for the runs `before` and `after`, their summaries as JSON, the `adapter`, and the page
            `report.html`.
        cases: number of cases of the testbed's dev split that are judged; training uses the train split only.
        steps: number of L-PPO steps.

    Raises:
        LayeralignError: `out` holds runs with other settings.
    """
    out = Path(out)
    chosen = settings(steps)
    phase(1, 4, "scan before")
    before = _scan(out, "before", cases, None)
    phase(2, 4, f"train, {steps} steps")
    history = align(
        "testbed", "testbed:train", out / "adapter", reward="testbed", settings=chosen, limit=TRAINED_ON
    )
    phase(3, 4, "scan after")
    after = _scan(out, "after", cases, out / "adapter")
    phase(4, 4, "compare and report")
    found = compare(before.run, after.run)
    runs = gather([before.run, after.run])
    page.write(runs, out / "report.html", notes=_story(chosen, history, found))
    return found


def reward_and_harm(history: Sequence[Mapping[str, Any]], found: Comparison) -> str:
    """Change of the reward and of refusals; a reward that rises without refusals is reward hacking.

    The reward is the mean of rollouts, whose exits and cases change from step to step. Incoherent answers do
    not count as refusals.
    """
    n = min(5, len(history))
    first, last = (sum(step["reward"] for step in part) / n for part in (history[:n], history[-n:]))
    measured = [e.refusal for e in found.exits if e.refusal]
    before, after = (sum(getattr(c, when) for c in measured) / len(measured) for when in ("before", "after"))
    refusals = f"{100 * before:.1f} → {100 * after:.1f} %"
    changes = f"{first:+.2f} → {last:+.2f}, harmful requests refused, mean over exits, {refusals}"
    hacked = last > first and after <= before
    return f"{changes}: the reward rose and refusals did not, which is reward hacking" if hacked else changes


def _story(
    chosen: AlignSettings, history: Sequence[Mapping[str, Any]], found: Comparison
) -> list[tuple[str, str]]:
    return [
        (
            "trained by",
            f"L-PPO at all exits, mix {chosen.mix}, {chosen.steps} steps of {chosen.rows} answers",
        ),
        (
            "trained on",
            "the testbed's train split, with a reward model that learned from noisy preferences",
        ),
        ("reward", reward_and_harm(history, found)),
        (
            "judged on",
            "the dev split, by the testbed's exact oracle, which took no part in training. Model and cases "
            "are independent of the training. The rules behind the labels are the same, and the settings "
            "were chosen on this split; docs/align.md has the sealed test",
        ),
    ]


def _scan(out: Path, name: str, cases: int, adapter: Path | None) -> Scan:
    model = load("testbed", adapter=adapter)
    found = scan(model, "testbed:dev", out / name, limit=cases, max_new_tokens=TOKENS)
    files.write_json(out / f"{name}.json", found.summary.to_json())
    return found
