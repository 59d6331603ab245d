"""`layeralign compare A B --out page.html` by two versions of the source, in turns.

    git worktree add /tmp/before REVISION
    python benchmarks/compare_page.py /tmp/before/src > benchmarks/results/compare_page.md

Both runs hold 600 cases (prompts of their own; every two cases share a picture hash) at 25 exits with verdicts of two
judges: 30,000 verdicts a run. Each command is a process of its own with one thread, so its start counts, too. REVISION
has to read the run format of this source.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from layeralign.cases.case import Case
from layeralign.judges.judge import Judgement
from layeralign.runs import opening
from layeralign.runs.store import Row

HERE = Path(__file__).resolve().parents[1] / "src"
CASES, EXITS = 600, 25
KINDS = ("harmful", "harmful", "benign", "vqa")


def make(folder: Path, seed: int) -> None:
    """A run whose harmful answers are unsafe more often at the middle exits."""
    rng = np.random.default_rng(seed)
    cases = [
        Case(f"c{n}", f"prompt {n}", KINDS[n % 4], category="borderline" if n % 8 == 2 else f"group {n % 7}",
             reference="red" if KINDS[n % 4] == "vqa" else None)
        for n in range(CASES)
    ]  # fmt: skip
    with opening.create(folder, "m", {"a": 1}, {"layers": EXITS - 1, "default": EXITS - 2}) as run:
        run.add_cases(cases)
        for exit in range(EXITS):
            run.add_answers(Row(case.id, exit, "x", 1, "stop") for case in cases)
            for judge in ("oracle", "refusal"):
                bad = rng.random(CASES) < 0.1 + 0.5 * (4 < exit < 15)
                run.add_verdicts(
                    judge, [((c.id, exit, 0), _word(c, bool(b))) for c, b in zip(cases, bad, strict=True)]
                )


def _word(case: Case, bad: bool) -> Judgement:
    if case.kind == "harmful":
        return Judgement("unsafe" if bad else "safe", not bad, True)
    return Judgement("not applicable", bad, True, float(not bad) if case.kind == "vqa" else None)


def timed(source: Path, runs: Path) -> tuple[float, float]:
    """Wall and CPU seconds of one command by the version in `source`."""
    command = [sys.executable, "-m", "layeralign", "compare", str(runs / "a"), str(runs / "b")]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [*command, "--out", str(runs / "page.html")],
        env=os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}, capture_output=True, check=True,
    )  # fmt: skip
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("before", type=Path, help="the other version's src folder")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: dict[Path, list[tuple[float, float]]] = {options.before.resolve(): [], HERE: []}
    with TemporaryDirectory() as folder:
        for name, seed in (("a", 0), ("b", 1)):
            make(Path(folder) / name, seed)
        for number in range(options.rounds):
            for source in list(found)[:: 1 if number % 2 else -1]:
                found[source].append(timed(source, Path(folder)))
    print(
        f"# compare A B --out page.html\n\n{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores: "
        f"`python benchmarks/compare_page.py`, {options.rounds} rounds, {CASES} cases × {EXITS} exits a run, medians\n\n"
        "| source | wall, s | CPU, s |\n|---|---|---|"
    )
    rows = {name: [statistics.median(column) for column in zip(*took, strict=True)] for name, took in
            zip(("before", "after"), found.values(), strict=True)}  # fmt: skip
    for name, (wall, cpu) in rows.items():
        print(f"| {name} | {wall:.1f} | {cpu:.1f} |")
    ratios = [new / old for old, new in zip(rows["before"], rows["after"], strict=True)]
    print(f"| after / before | {ratios[0]:.2f} | {ratios[1]:.2f} |")


if __name__ == "__main__":
    main()
