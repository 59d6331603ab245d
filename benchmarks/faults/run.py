"""Kill, start at once, damage and starve commands at random moments, and compare what is left.

    python benchmarks/faults/run.py > benchmarks/results/faults.md            # all of it, about two hours
    python benchmarks/faults/run.py --only flips disk --n 20

Every fault is counted as held if the result after it is right, and if what was said is one sentence. Anything
else is printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
import children
import layeralign
from layeralign import LayeralignError
from layeralign.cli import main as layeralign_cli
from layeralign.runs.opening import open_run
from layeralign.training import train

SCAN = ["scan", "--model", "testbed", "--cases", "testbed", "--max-new-tokens", "12", "--batch-size", "8"]
SMALL = [*SCAN, "--limit", "48", "--exits", "0,3,default"]
SEQUENTIAL = [*SCAN, "--limit", "160", "--exits", "0,default", "--precision", "0.2"]
ALIGN = ["align", "--model", "testbed", "--cases", "testbed:train", "--limit", "16", "--method", "consistency",
         "--steps", "8", "--rows", "4", "--rank", "2", "--max-new-tokens", "4"]  # fmt: skip
JUDGE = ["judge", "RUN", "--judge", "reward:testbed"]


def rows(folder: Path) -> list[str]:
    """A run's rows with their verdicts, without order."""
    with open_run(folder) as run:
        return sorted(repr(sorted(row.items(), key=str)) for row in run.rows())


def weights(folder: Path) -> bytes:
    """An adapter's weights."""
    return (folder / "adapter_model.safetensors").read_bytes()


def saving_each_step(words: list[str]) -> int:
    """Run a training that can go on from each of its steps; usually from every tenth."""
    train.SAVE_EVERY = 1
    return layeralign_cli(words)


def one_sentence(said: str) -> bool:
    """Whether nothing was said that only a developer understands."""
    return "Traceback" not in said and "a bug in layeralign" not in said


def kills(
    words: Sequence[str],
    read: Callable[[Path], object],
    n: int,
    work: Path,
    *,
    of: Sequence[str] = (),
    main: Callable[[list[str]], int] = layeralign_cli,
) -> Counter[str]:
    """Kill a command n times at random moments, always in the same folder until it ends, and compare.

    Args:
        words: the command; RUN stands for the folder.
        read: what is compared of a folder.
        n: number of kills.
        work: an empty folder.
        of: the command that makes a folder for the other one.
        main: runs the words of a command.
    """
    rng, counts = random.Random(0), Counter[str]()

    def start(folder: Path) -> children.Child:
        given = [word.replace("RUN", str(folder)) for word in words]
        return children.start(main, given, out=work / "said")

    def begin(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        if of:
            shutil.copytree(work / "begun", folder)

    if of:
        assert children.command(*of, str(work / "begun")).wait(600) == 0
    whole = work / "whole"
    begin(whole)
    children.command("--version").wait(600)  # starts the server that forks, which takes long
    started = time.monotonic()
    process = start(whole)
    assert process.wait(600) == 0, process.said()
    seconds, wanted = time.monotonic() - started, read(whole)
    folder, fresh = work / "cut", True
    while counts["killed"] < n:
        if fresh:
            begin(folder)
        process = start(folder)
        end = time.monotonic() + rng.random() * seconds * 1.1
        while time.monotonic() < end and process.poll() is None:
            time.sleep(0.002)
        if process.poll() is None:
            process.send(signal.SIGKILL)
        code = process.wait(60)
        fresh = code == 0 or rng.random() < 0.1
        if code == -signal.SIGKILL:
            counts["killed"] += 1
        elif code:
            counts["failed"] += 1
            print(f"FAILED {words[0]}: {process.said()[-500:]}", file=sys.stderr)
        if fresh:
            code = start(folder).wait(600)
            held = code == 0 and read(folder) == wanted
            counts["compared, equal" if held else "compared, not equal"] += 1
    return counts


def starts(n: int, work: Path) -> Counter[str]:
    """Start two scans into one new folder at once, n times."""
    counts = Counter[str]()
    children.command(*SMALL, "--out", str(work / "whole")).wait(600)
    wanted = rows(work / "whole")
    for at in range(n):
        folder = work / f"run{at}"
        both = [children.command(*SMALL, "--out", str(folder), out=work / f"said{at}-{i}") for i in range(2)]
        codes = [process.wait(600) for process in both]
        fine = 0 in codes and set(codes) <= {0, 1} and all(one_sentence(process.said()) for process in both)
        counts["held" if fine and rows(folder) == wanted else "lost"] += 1
        shutil.rmtree(folder)
    return counts


def flips(n: int, work: Path) -> Counter[str]:
    """Flip one bit of a closed run's file, n times: every reader refuses, or the figures are unchanged."""
    rng, counts, folder = random.Random(0), Counter[str](), work / "run"
    children.command(*SMALL, "--out", str(folder)).wait(600)
    file = folder / "run.sqlite"
    whole, figures = file.read_bytes(), layeralign.read(folder).summary.to_json()
    for _ in range(n):
        at = rng.randrange(len(whole))
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
        try:
            same = layeralign.read(folder).summary.to_json() == figures
            counts["figures unchanged" if same else "changed in silence"] += 1
        except LayeralignError:
            counts["refused"] += 1
    return counts


def starved(words: list[str], limit: int) -> int:
    """Run a command whose files may have `limit` bytes, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return layeralign_cli(words)


def disk(n: int, work: Path) -> Counter[str]:
    """Limit the size of files at n random sizes; then go on without the limit."""
    rng, counts = random.Random(0), Counter[str]()
    children.command(*SMALL, "--out", str(work / "whole")).wait(600)
    wanted, size = rows(work / "whole"), (work / "whole" / "run.sqlite").stat().st_size
    for at in range(n):
        folder = work / f"run{at}"
        words = [*SMALL, "--out", str(folder)]
        process = children.start(starved, words, rng.randrange(1, size), out=work / f"said{at}")
        code, said = process.wait(600), process.said()
        again = children.command(*words).wait(600)
        fine = code in (0, 1) and one_sentence(said) and again == 0 and rows(folder) == wanted
        counts["held" if fine else "lost"] += 1
        if not fine:
            print(f"LOST {code} {again} {said[-500:]}", file=sys.stderr)
        shutil.rmtree(folder)
    return counts


def faults(n: int) -> dict[str, Callable[[Path], Counter[str]]]:
    """Name -> a function that does the faults in a folder."""
    return {
        "kill -9: scan": lambda work: kills([*SMALL, "--out", "RUN"], rows, n, work),
        "kill -9: scan with --precision": lambda work: kills([*SEQUENTIAL, "--out", "RUN"], rows, n, work),
        "kill -9: judge": lambda work: kills(JUDGE, rows, n, work, of=[*SMALL, "--out"]),
        "kill -9: align": lambda work: kills(
            [*ALIGN, "--out", "RUN"], weights, n, work, main=saving_each_step
        ),
        "two scans started at once": lambda work: starts(n, work),
        "flips of one bit": lambda work: flips(n, work),
        "disk full": lambda work: disk(max(1, n // 4), work),
    }


def main() -> int:
    """Do the faults, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the names of faults")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores\n\n| fault | outcome | s |\n|---|---|---|"
    )
    bad = 0
    for name, do in faults(arguments.n).items():
        if not any(part in name for part in arguments.only):
            continue
        started = time.monotonic()
        with TemporaryDirectory() as folder:
            counts = do(Path(folder))
        bad += sum(counts[word] for word in ("failed", "compared, not equal", "lost", "changed in silence"))
        told = ", ".join(f"{word} {count}" for word, count in counts.items())
        print(f"| {name} | {told} | {time.monotonic() - started:.0f} |", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
