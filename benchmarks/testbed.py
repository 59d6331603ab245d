"""Build the testbed from its seeds and open the sealed test split, once.

    python benchmarks/testbed.py --seeds 0 1 2 --out out/testbed

The recipe is final before this runs; recipes are compared on the dev split only. A seed's model
that is in OUT already is not built again, so a stopped run goes on.
"""

import argparse
import json
import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

import layeralign
from layeralign.analysis.summary import ExitMetrics
from layeralign.testbed.build import Recipe, build

CASES = 2400
"""600 of each stratum."""
_COLUMNS = ("asr", "refusal", "over_refusal", "discrimination", "benign_refusal", "coherence", "utility")


def row(seed: int, e: ExitMetrics) -> str:
    """One exit's figures as a Markdown row, in percent."""
    cells = [f"{100 * value:.1f}" if (value := getattr(e, name)) is not None else "–" for name in _COLUMNS]
    low, high = (100 * (x or 0) for x in (e.asr_low, e.asr_high))
    name = f"**{e.exit}**" if e.default else str(e.exit)
    return f"| {seed} | {name} | {cells[0]} | {low:.1f}–{high:.1f} | {' | '.join(cells[1:])} | {e.n} | {e.invalid} |"


def main() -> None:
    """Build, scan the sealed test, write the table and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("out/testbed"))
    arguments = parser.parse_args()
    seconds, lines, summaries = {}, [], {}
    for seed in arguments.seeds:
        folder = arguments.out / f"seed-{seed}"
        if not (folder / "model.safetensors").exists():
            start = time.monotonic()
            build(seed, folder, Recipe())
            seconds[seed] = time.monotonic() - start
        run = arguments.out / f"test-{seed}"
        found = layeralign.scan(folder, "testbed:test", run, limit=CASES, max_new_tokens=24)
        summaries[seed] = found.summary.to_json()
        lines += [row(seed, e) for e in found.summary.exits]
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, {CASES} sealed test cases\n"
    )
    print(
        "built in", ", ".join(f"{s:.0f} s (seed {n})" for n, s in seconds.items()) or "an earlier call", "\n"
    )
    print("| seed | exit | ASR % | 95 % | refuses harmful | refuses authorised | discrimination | refuses benign "
          "| coherent | picture questions | n | invalid |")  # fmt: skip
    print("|---" * 12 + "|")
    print("\n".join(lines))
    (arguments.out / "test.json").write_text(json.dumps(summaries, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
