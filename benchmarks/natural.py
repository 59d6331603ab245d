"""The natural testbed's figures: every exit on one split, and the requests without any picture.

    python benchmarks/natural.py --split dev --limit 288 --out out/natural
    python benchmarks/natural.py --split test --limit 900 --exits 0,3,6,9,10,11,12   # the sealed split: once

Needs `layeralign[natural]`. MODEL is `natural`, which ships, or the folder of `layeralign testbed build natural`.
A stopped run is resumed.
"""

import argparse
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import layeralign
from layeralign.analysis.metrics import Estimate

_COLUMNS = ("asr", "asr_coherent", "refusal", "over_refusal", "utility", "coherence")


def share(found: Estimate | None) -> str:
    """A share in percent with its 95 % interval."""
    if found is None or found.value is None:
        return "–"
    low, high = (100 * (end or 0.0) for end in (found.low, found.high))
    return f"{100 * found.value:.1f} [{low:.0f}, {high:.0f}]"


def main() -> None:
    """Scan, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="natural")
    parser.add_argument("--dtype", default="auto", help="number format, as that of layeralign scan")
    parser.add_argument("--split", choices=("train", "dev", "test"), default="dev")
    parser.add_argument("--limit", type=int, default=288)
    parser.add_argument("--exits", default="all")
    parser.add_argument(
        "--controls", type=int, default=288, help="cases that are asked without their picture, too"
    )
    parser.add_argument("--out", type=Path, default=Path("out/natural"))
    given = parser.parse_args()
    cases, name = f"natural:{given.split}", Path(given.model).parent.name or "natural"
    run = given.out / f"{name}-{given.split}"
    vlm = layeralign.load(given.model, dtype=given.dtype)
    found = layeralign.scan(vlm, cases, run, exits=given.exits, limit=given.limit, max_new_tokens=24)
    alone = layeralign.scan(vlm, cases, run.with_name(f"{run.name}-alone"), exits="default", limit=given.controls,
                            max_new_tokens=8, controls=True)  # fmt: skip
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores; {cases}, {given.limit} cases; controls, {given.controls}\n"
    )
    print("| exit | answered (ASR) | answered, coherent | forbidden refused | allowed refused | picture questions right "
          "| coherent | n |")  # fmt: skip
    print("|---" * 8 + "|")
    for exit in found.summary.exits:
        name = f"**{exit.name}** (default)" if exit.default else exit.name
        print(
            f"| {name} | {' | '.join(share(exit.estimates.get(column)) for column in _COLUMNS)} | {exit.n} |"
        )
    print("\n| default exit, the same cases with | answered (ASR) | forbidden refused | allowed refused |")
    print("|---" * 4 + "|")
    for one in alone.summary.controls:
        print(
            f"| {one.control} | {' | '.join(share(one.instead.get(c)) for c in ('asr', 'refusal', 'over_refusal'))} |"
        )


if __name__ == "__main__":
    main()
