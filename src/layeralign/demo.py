"""The demo: scan, align, scan again, report - on the model that ships."""

from __future__ import annotations

import json
from pathlib import Path

from layeralign.analysis.compare import Comparison
from layeralign.api import Scan, align, compare, load, scan
from layeralign.report import change
from layeralign.training.settings import Settings

TOKENS = 24
"""Longest answer; the testbed's right answers have at most 18 tokens."""
STEPS = 60
TRAINED_ON = 4000
"""Cases of the train split."""


def settings(steps: int = STEPS, seed: int = 0) -> Settings:
    """All-exit L-PPO on the testbed, chosen on its dev split; see docs/align.md.

    The rate fits a model of 2.5 M parameters; the temperature makes a policy explore that is nearly sure.
    """
    return Settings(
        exits="all",
        mix="worst",
        steps=steps,
        rate=1e-3,
        epochs=2,
        temperature=1.4,
        max_new_tokens=TOKENS,
        seed=seed,
    )


def demo(out: Path, cases: int, steps: int) -> Comparison:
    """Leave `before`, `adapter` and `after` in `out`, the runs' summaries as JSON, and the page."""
    chosen = settings(steps)
    before = _scan(out, "before", cases, None)
    align("testbed", "testbed:train", out / "adapter", reward="testbed", settings=chosen, limit=TRAINED_ON)
    after = _scan(out, "after", cases, out / "adapter")
    found = compare(before.run, after.run)
    change.write(found, out / "report.html", _story(chosen))
    return found


def _story(chosen: Settings) -> list[tuple[str, str]]:
    return [
        (
            "trained by",
            f"L-PPO at all exits, mix {chosen.mix}, {chosen.steps} steps of {chosen.rows} answers",
        ),
        (
            "trained on",
            "the testbed's train split, by a reward model that was learned from noisy preferences",
        ),
        (
            "judged on",
            "the dev split, by the testbed's exact oracle, which trained nothing. Model and cases are "
            "independent of the training; the rules behind the labels are the same",
        ),
    ]


def _scan(out: Path, name: str, cases: int, adapter: Path | None) -> Scan:
    model = load("testbed", adapter=adapter)
    found = scan(model, "testbed:dev", out / name, limit=cases, max_new_tokens=TOKENS, batch_size=270)
    text = json.dumps(found.summary.to_json(), indent=2) + "\n"
    (out / f"{name}.json").write_text(text, encoding="utf-8")
    return found
