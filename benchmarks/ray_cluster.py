"""A scan on a Ray cluster of two nodes on this machine: equal rows, dying workers and nodes, and throughput.

    python benchmarks/ray_cluster.py > benchmarks/results/ray_cluster.md

Each node is a Ray node of its own with one CPU. `kill -9` of a worker, and the loss of the second node with its
worker, come at random moments while the scan answers; a lost node is replaced before the next try. Throughput counts
the time while answers are generated, in turns with one process of one thread. Needs layeralign[ray].
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

SCAN = [
    "scan",
    "--model",
    "testbed",
    "--cases",
    "testbed",
    "--exits",
    "0,3,default",
    "--max-new-tokens",
    "24",
]


def rows(folder: Path) -> list[str]:
    """A run's rows with their verdicts, without order."""
    from layeralign.runs.opening import open_run

    with open_run(folder) as run:
        return sorted(repr(sorted(row.items(), key=str)) for row in run.rows())


def rate(folder: Path) -> float:
    """Answers per second, over the time while the run's answers were generated."""
    from layeralign.runs.opening import open_run
    from layeralign.sweep import rate as of

    with open_run(folder) as run:
        return of.of(run)


def start(out: Path, limit: int, *more: str) -> subprocess.Popen[str]:
    """A scan in a process of its own."""
    words = [sys.executable, "-m", "layeralign", *SCAN, "--limit", str(limit), "--out", str(out), *more]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def done(process: subprocess.Popen[str], wanted: int = 0) -> str:
    """What a scan printed; it has to end with this exit code."""
    _, said = process.communicate(timeout=600)
    assert process.returncode == wanted, said
    return said


def workers() -> list[psutil.Process]:
    """The worker processes."""
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if (one.info["cmdline"] or [""])[0].startswith("ray::Answerer")
    ]


def answering(process: subprocess.Popen[str], out: Path) -> None:
    """Wait until the scan has its first rows."""
    while process.poll() is None and not any(out.glob("run.sqlite*")):
        time.sleep(0.05)
    while process.poll() is None and not workers():
        time.sleep(0.05)


def throughput(work: Path, on: list[str], limit: int, rounds: int) -> tuple[float, list[str], bool]:
    """Scan in turns without and with the cluster, print a table.

    Returns the answers per second of two workers, the rows, and whether all scans have the same.
    """
    ways: dict[str, list[str]] = {"one process, one thread": [], "two workers": on}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    walls: dict[str, list[float]] = {name: [] for name in ways}
    outs = []
    for turn in range(rounds):
        for name, more in ways.items():
            out, began = work / f"{len(more)}-{turn}", time.monotonic()
            done(start(out, limit, *more))
            rates[name].append(rate(out))
            walls[name].append(time.monotonic() - began)
            outs.append(out)
    print("| scan | answers per second, median | whole command, s |\n|---|---|---|")
    for name, found in rates.items():
        print(f"| {name} | {statistics.median(found):.1f} | {statistics.median(walls[name]):.1f} |")
    alone, both = (statistics.median(found) for found in rates.values())
    wanted = rows(outs[0])
    equal = all(rows(out) == wanted for out in outs)
    print(
        f"\nTwo workers answer {both / alone:.2f} times as fast. The rows of all {len(outs)} scans are equal: {equal}.\n",
        flush=True,
    )
    return both, wanted, equal


def main() -> int:
    """Do all of it, print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n", type=int, default=10, help="kills of workers, and losses of the second node")
    parser.add_argument("--limit", type=int, default=400, help="cases of a scan")
    parser.add_argument("--rounds", type=int, default=3, help="of the throughput")
    given = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    on = ["--ray", cluster.address, "--workers", "2"]
    print(
        f"# A scan on a Ray cluster\n\n{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, Ray "
        f"{ray.__version__}: `python {' '.join(['benchmarks/ray_cluster.py', *sys.argv[1:]])}`. Two nodes with one CPU "
        f"each; {given.limit} cases at 3 exits of the testbed.\n"
    )
    rng, counts = random.Random(0), Counter[str]()
    with TemporaryDirectory() as folder:
        work = Path(folder)
        speed, wanted, equal = throughput(work, on, given.limit, given.rounds)
        for what, turn in [(what, turn) for what in ("worker", "node") for turn in range(given.n)]:
            out = work / f"{what}{turn}"
            process = start(out, given.limit, *on)
            answering(process, out)
            time.sleep(rng.random() * given.limit * 3 / speed)
            alive = workers()
            if what == "node":
                cluster.remove_node(second, allow_graceful=False)
                second = cluster.add_node(num_cpus=1)
            elif alive:
                rng.choice(alive).kill()
            done(process)
            late = "" if alive else ", after its end"
            counts[f"{what} | {'equal' if rows(out) == wanted else 'NOT EQUAL'}{late}"] += 1
    print("| what died | rows afterwards | times |\n|---|---|---|")
    for name, count in counts.items():
        print(f"| {name} | {count} |")
    cluster.shutdown()
    return int(not equal or any("NOT" in name for name in counts))


if __name__ == "__main__":
    sys.exit(main())
