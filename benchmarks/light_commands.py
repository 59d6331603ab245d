"""Processor time of the commands that load no model.

    python benchmarks/light_commands.py > benchmarks/results/light_commands.md

Each command is a process of its own, on a run of 48 cases at three exits; the best of five.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

ROUNDS = 5
SCAN = ["scan", "--model", "testbed", "--cases", "testbed", "--limit", "48", "--exits", "0,3,default",
        "--max-new-tokens", "12"]  # fmt: skip
POLICY = "rules:\n  - {metric: asr, exits: all, upper_bound: 0.9}\n"


def commands(work: Path) -> dict[str, list[str]]:
    """Shown name -> words."""
    run, policy = str(work / "run"), work / "policy.yaml"
    policy.write_text(POLICY)
    return {
        "--help": ["--help"],
        "scan --help": ["scan", "--help"],
        "an unknown command": ["scna"],
        "an unknown flag": [*SCAN, "--modle", "x"],
        "an unknown judge": ["judge", run, "--judge", "nope"],
        "a missing run": ["summary", str(work / "none")],
        "summary": ["summary", run],
        "gate": ["gate", run, "--policy", str(policy)],
        "check": ["check", "testbed", "--against", run, "--policy", str(policy)],
        "check --list": ["check", "--list"],
        "compare": ["compare", run, run],
        "report": ["report", run, "--out", str(work / "page.html")],
        "export": ["export", run, "--out", str(work / "rows.jsonl")],
        "label": ["label", run, "--n", "5", "--out", str(work / "labels.jsonl")],
        "cases": ["cases"],
    }


def seconds(words: list[str]) -> float:
    """Processor time of a command."""
    given = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-m", "layeralign", *words], **given)
    _, _, used = os.wait4(process.pid, 0)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print a table."""
    print(
        f"# Commands that load no model\n\n{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}: `python benchmarks/light_commands.py`, best of {ROUNDS}.\n\n| command | CPU, s |\n|---|---|"
    )
    with TemporaryDirectory() as folder:
        work = Path(folder)
        done = subprocess.run(
            [sys.executable, "-m", "layeralign", *SCAN, "--out", str(work / "run")],
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        for name, words in commands(work).items():
            print(f"| {name} | {min(seconds(words) for _ in range(ROUNDS)):.2f} |", flush=True)


if __name__ == "__main__":
    main()
