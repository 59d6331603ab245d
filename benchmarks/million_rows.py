"""Time and memory of the commands that read a run, by its number of rows.

    python benchmarks/million_rows.py --rows 10000 100000 1000000 > benchmarks/results/million_rows.md

A run has 25 exits and the verdicts of one judge; prompts are the cases' own, and a quarter of the cases each is
a picture question or benign. Each command is a process of its own with one thread. `resume` repeats a finished
scan of the testbed's model at 9 exits, which has to find that nothing is left to do.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from layeralign.cases import files
from layeralign.cases.case import Case
from layeralign.judges.judge import Judgement
from layeralign.runs import opening
from layeralign.runs.store import Row

EXITS, TESTBED_EXITS = 25, 9
KINDS = ("harmful", "harmful", "benign", "vqa")
POLICY = "rules:\n  - {metric: asr, exits: all, upper_bound: 0.9}\n"


def make(folder: Path, rows: int, seed: int) -> None:
    """Write a run whose harmful answers are unsafe more often at the middle exits."""
    rng, n = np.random.default_rng(seed), rows // EXITS
    cases = [
        Case(f"c{i}", f"prompt {i}", KINDS[i % 4], category="borderline" if i % 8 == 2 else f"group {i % 7}",
             reference="red" if KINDS[i % 4] == "vqa" else None)
        for i in range(n)
    ]  # fmt: skip
    with opening.create(folder, "m", {"a": 1}, {"layers": EXITS - 1, "default": EXITS - 2}) as run:
        run.add_cases(cases)
        for exit in range(EXITS):
            run.add_answers(Row(case.id, exit, "It is red, and I can say so.", 8, "stop") for case in cases)
            bad = rng.random(n) < 0.1 + 0.5 * (4 < exit < 15)
            run.add_verdicts(
                "oracle", [((c.id, exit, 0), _word(c, bool(b))) for c, b in zip(cases, bad, strict=True)]
            )


def _word(case: Case, bad: bool) -> Judgement:
    if case.kind == "harmful":
        return Judgement("unsafe" if bad else "safe", not bad, True)
    return Judgement("not applicable", bad, True, float(not bad) if case.kind == "vqa" else None)


def finished(work: Path, rows: int) -> list[str]:
    """Make a finished scan of the testbed's model; return its arguments."""
    file, folder = work / "cases.jsonl", work / "finished"
    made = (
        {"id": f"c{i}", "prompt": f"what is {i}?", "kind": "harmful"} for i in range(rows // TESTBED_EXITS)
    )
    file.write_text("".join(f"{json.dumps(case)}\n" for case in made), encoding="utf-8")
    words = ["scan", "--model", "testbed", "--cases", str(file), "--exits", "all", "--max-new-tokens", "1",
             "--out", str(folder)]  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "layeralign", *words, "--limit", "2"], check=True, capture_output=True
    )
    cases = files.read(file)
    with opening.open_run(folder, write=True) as run:
        run.add_cases(cases)
        for exit in range(TESTBED_EXITS):
            run.add_answers(Row(case.id, exit, "I cannot help with that.", 6, "stop") for case in cases[2:])
    subprocess.run([sys.executable, "-m", "layeralign", *words], check=True, capture_output=True)  # judges
    return words


def commands(run: Path, other: Path, work: Path, rows: int) -> Iterator[tuple[str, list[str]]]:
    """Name -> arguments of each command."""
    policy = work / "policy.yaml"
    policy.write_text(POLICY)
    yield "summary", ["summary", str(run)]
    yield "gate", ["gate", str(run), "--policy", str(policy)]
    yield "export", ["export", str(run), "--out", str(work / "rows.parquet")]
    yield "compare", ["compare", str(other), str(run)]
    yield "report", ["report", str(run), "--out", str(work / "page.html")]
    yield "resume", finished(work, rows)


def measure(arguments: list[str], limit: float) -> tuple[float, float, int]:
    """Return CPU seconds, memory in MiB and the exit code of a command."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "layeralign", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while True:
        found, status, used = os.wait4(process.pid, os.WNOHANG)
        if found:
            return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, os.waitstatus_to_exitcode(status)
        if time.monotonic() - started > limit:
            process.kill()
        time.sleep(0.02)


def main() -> None:
    """Measure every command at every size, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--limit", type=float, default=900.0, help="seconds per command")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores\n")
    print("| command | rows | CPU, s | µs per row | memory, MiB | exit code |")
    print("|---|---|---|---|---|---|")
    for rows in arguments.rows:
        with TemporaryDirectory() as temporary:
            work = Path(temporary)
            for seed, name in enumerate(("run", "other")):
                make(work / name, rows, seed)
            for name, given in commands(work / "run", work / "other", work, rows):
                if not arguments.only or name in arguments.only:
                    seconds, memory, code = measure(given, arguments.limit)
                    line = f"{seconds:.1f} | {1e6 * seconds / rows:.0f} | {memory:.0f} | {code}"
                    print(f"| {name} | {rows:,} | {line} |", flush=True)


if __name__ == "__main__":
    main()
