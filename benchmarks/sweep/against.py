"""The same scan by two versions of the source, in turns: what a change costs.

    git worktree add /tmp/before REVISION
    python benchmarks/sweep/against.py /tmp/before/src > benchmarks/results/against.md

Each round is a process of its own for each version, with one thread, which loads the model, scans once to warm up
and three times to be timed; the fewest CPU seconds of the three count, which other work on the machine disturbs
least. The order changes from round to round. The ratio is after / before, pair by pair.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parents[2] / "src"
CHILD = "--child"
SHAPES = {"testbed": (300, 12), "135m": (1, 16)}
"""Shape -> cases and new tokens."""


def child(shape: str, folder: str) -> None:
    """Scan four times; print the fewest CPU seconds of the last three, planning, store and judging included."""
    import models

    import layeralign
    from layeralign.testbed import cases as testbed

    n, longest = SHAPES[shape]
    vlm = layeralign.load("testbed" if shape == "testbed" else folder)
    cases = testbed.cases("dev", n, 0) if shape == "testbed" else models.cases(n, 1)
    seconds = []
    with TemporaryDirectory() as out:
        for name in ("warm", "first", "second", "third"):
            start = time.process_time()
            layeralign.scan(vlm, cases, Path(out) / name, max_new_tokens=longest)
            seconds.append(time.process_time() - start)
    print(min(seconds[1:]))


def timed(source: Path, shape: str, folder: str) -> float:
    """CPU seconds of one scan by the version in `source`."""
    command = [sys.executable, __file__, CHILD, shape, folder]
    made = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(made.stdout.splitlines()[-1])


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("before", type=Path, help="the other version's src folder")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    print(
        f"# A scan by two versions\n\n{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, "
        f"load average {load} at the start: `python benchmarks/sweep/against.py`, {options.rounds} rounds\n\n"
        "| model | before, CPU s | after, CPU s | after / before, pair by pair: median | lowest, highest |\n|---|---|---|---|---|"
    )
    with TemporaryDirectory() as folder:
        import models

        models.save("135m", Path(folder))
        for shape in SHAPES:
            both: list[tuple[float, float]] = []
            for number in range(options.rounds):
                order = [options.before.resolve(), HERE]
                order = order if number % 2 else order[::-1]
                took = {source: timed(source, shape, folder) for source in order}
                both.append((took[options.before.resolve()], took[HERE]))
            before, after = (statistics.median(column) for column in zip(*both, strict=True))
            ratios = [new / old for old, new in both]
            print(
                f"| {shape} | {before:.2f} | {after:.2f} | {statistics.median(ratios):.3f} | "
                f"{min(ratios):.3f}, {max(ratios):.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        child(*sys.argv[2:4])
    else:
        main()
