"""A sweep against the loops that people write: speed, tokens, memory, and how far it is from the machine's limit.

    python benchmarks/sweep/run.py > benchmarks/results/sweep.md                 # on a CPU: 30 minutes
    python benchmarks/sweep/run.py --shape 7b > benchmarks/results/sweep_gpu.md  # on a GPU of 80 GB or more
    python benchmarks/sweep/run.py --shape small --quick                         # the GPU's script, on any CPU

A is a plain loop: each exit, each case, processor and `generate(vision_feature_layer=l)`, one at a time. B is the same
in batches of eight cases. C is EleutherAI's harness, where it is installed (`pip install lm-eval`). None can be asked
for exit 0, which transformers takes for "none". They and ours take turns; a figure is the median over the rounds. The
others answer a part of the grid, at other exits in each round, since they take as long at any exit; ours sweeps all of
it, with planning, store and judges. Of every row that A answered, ours has to have the same text, word for word.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import models
import torch
from contest import Contest
from watch import watched

import layeralign
from layeralign.testbed import cases as testbed
from layeralign.vlm.vlm import Vlm

# --- memory: a process for each measurement


def peak(folder: Path, cases: int, exits: int) -> None:
    """The child: scan, and print the peak of its resident memory in MiB."""
    vlm = layeralign.load(folder)
    with TemporaryDirectory() as out:
        layeralign.scan(
            vlm,
            models.cases(cases, 1),
            Path(out) / "run",
            exits=list(range(exits)),
            max_new_tokens=8,
            batch_size=64,
        )
    status = Path("/proc/self/status").read_text()  # getrusage would tell the parent's peak
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def memory(folder: Path, cases: tuple[int, int]) -> None:
    """Peak memory of small and large scans, as Markdown."""
    print(
        "\n## Peak memory\n\nToy model with 24 blocks, batch size 64, a process each, all that a scan does.\n"
    )
    print("| cases | exits | rows | peak, MiB | of the smaller |\n|---|---|---|---|---|")
    for small, large in (((cases[0], 2), (cases[1], 2)), ((200, 2), (200, 25))):
        found = []
        for n, exits in (small, large):
            told = subprocess.run(
                [sys.executable, __file__, "--peak", str(folder), str(n), str(exits)],
                check=True, capture_output=True, text=True,
            )  # fmt: skip
            found.append(float(told.stdout.split()[-1]))
            print(
                f"| {n} | {exits} | {n * exits} | {found[-1]:.0f} | {100 * found[-1] / found[0] - 100:+.1f} % |"
            )


# --- what surrounds the model


def overhead(rows: int) -> None:
    """Planning, store and judges on the testbed, whose model is small enough to make them show."""
    vlm = layeralign.load("testbed")
    cases = testbed.cases("dev", -(-rows // len(vlm.exits.all)), 0)
    with TemporaryDirectory() as folder, watched(vlm) as watch:
        layeralign.scan(vlm, cases, Path(folder) / "run", max_new_tokens=24)
    spent = dict(watch.seconds)
    whole = spent.pop("all")
    print(f"\n## Around the model: the testbed, {len(cases) * len(vlm.exits.all)} rows\n")
    print("| part | s | of the time |\n|---|---|---|")
    for part, took in spent.items():
        print(f"| {part} | {took:.2f} | {100 * took / whole:.1f} % |")
    print(
        f"| the rest (the summary, loops) | {whole - sum(spent.values()):.2f} | {100 - 100 * sum(spent.values()) / whole:.1f} % |"
    )
    print(f"| all | {whole:.2f} | {len(cases) * len(vlm.exits.all) / whole:.0f} rows/s |")


def main() -> None:
    """Measure, and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shape", choices=list(models.SHAPES), default="135m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one short round of everything: does it run")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        peak(Path(arguments.peak[0]), int(arguments.peak[1]), int(arguments.peak[2]))
        return
    sys.stdout.reconfigure(line_buffering=True)  # what is measured stands there, whatever stops the rest
    gpu = torch.cuda.is_available()
    where = torch.cuda.get_device_name() if gpu else f"{platform.machine()}, {os.cpu_count()} cores"
    print("# A sweep against the loops that people write\n")
    print(f"{datetime.now(UTC):%Y-%m-%d}, {where}, {torch.get_num_threads()} threads, torch {torch.__version__}, load average "
          f"{', '.join(f'{n:.1f}' for n in os.getloadavg())} at the start; random weights: `python {' '.join(sys.argv)}`")  # fmt: skip
    with TemporaryDirectory() as folder:
        contests(Path(folder), arguments.shape, 1 if arguments.quick else arguments.rounds, arguments.quick)
        if not gpu:
            toy = models.save("small", Path(folder) / "toy")
            memory(toy, (20, 60) if arguments.quick else (100, 10_000))
            overhead(200 if arguments.quick else 10_000)


def contests(folder: Path, shape: str, rounds: int, quick: bool) -> None:
    """On the testbed and on the shape, with a prompt and with eight to each picture; 7B also with early ends."""

    def contest(title: str, vlm: Vlm, cases: list, longest: int) -> None:
        few = (cases[:4], 4, 1) if quick else (cases, longest, 2)
        found = Contest(vlm, few[0], list(vlm.exits.all), few[1], few[2])
        for number in range(rounds):
            found.round(number)
        found.report(title)

    large = shape == "7b"
    kinds = [
        ("a picture to each prompt", 32 if large else 8, 1, 0),
        ("8 prompts to each picture", 4 if large else 1, 8, 0),
    ]
    if shape == "135m":
        contest("The testbed", layeralign.load("testbed"), testbed.cases("dev", 24, 0), 24)
    else:
        kinds.append(("a picture to each prompt, early ends", kinds[0][1], 1, 40))
    dtype = "bfloat16" if large else "float32"
    saved = models.save(shape, folder / shape, getattr(torch, dtype))
    for title, pictures, prompts, ends in kinds:
        if ends:
            models.end(saved, ends)
        vlm = layeralign.load(saved, dtype=dtype)
        contest(f"{shape}: {title}", vlm, models.cases(pictures, prompts), 128 if large else 32)


if __name__ == "__main__":
    main()
