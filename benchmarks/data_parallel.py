"""Two processes against one: the same global batch and the same fixed rollouts must give the same losses.

    python benchmarks/data_parallel.py [--steps 4]

Started by torch's own launcher, as accelerate's starts CPU processes through MPI only; with GPUs
`accelerate launch` does the same. Rollouts are replaced by fixed answers, since
processes sample from their own random numbers. Prints each step's losses and the largest difference.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

NAMES = ("policy_loss", "value_loss", "retention_kl", "kl", "reward", "entropy", "grad_norm")


def worker(out: Path, steps: int) -> None:
    """One training, in as many processes as accelerate launched."""
    import torch

    import layeralign
    from layeralign.testbed.world import REFUSAL
    from layeralign.training.lppo import Lppo
    from layeralign.training.settings import AlignSettings

    def fixed(self: Lppo, rows: list, step: int) -> tuple[list[list[int]], list[bool]]:
        vlm = self.policy.vlm
        texts = [REFUSAL if exit % 2 else case.facts["helpful"] for case, exit in rows]
        ids = vlm.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return [[*line, min(vlm.eos_tokens)] for line in ids], [True] * len(rows)

    Lppo.sample = fixed
    torch.set_num_threads(1)
    settings = AlignSettings(steps=steps, rows=32, lr=1e-3, max_new_tokens=24, mix="worst")
    layeralign.align("testbed", "testbed:train", out, reward="testbed", settings=settings, limit=64)


def losses(folder: Path, processes: int, steps: int) -> list[dict]:
    """The log of a training in so many processes."""
    out = folder / str(processes)
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        str(processes),
        "--standalone",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    subprocess.run(
        [*launcher, __file__, "--worker", str(out), "--steps", str(steps)], check=True, env=environment
    )
    found = json.loads((out / "training.json").read_text())["processes"]
    if found != processes:
        raise SystemExit(f"launched {processes} processes, and the training saw {found}")
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def main() -> None:
    """Compare; exit code 1 where a difference is above 1e-5."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.steps)
        return
    with TemporaryDirectory() as folder:
        one, two = (losses(Path(folder), n, arguments.steps) for n in (1, 2))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores\n")
    print(f"| step | {' | '.join(NAMES)} |\n|{'---|' * (len(NAMES) + 1)}")
    for a, b in zip(one, two, strict=True):
        print(f"| {a['step']} | " + " | ".join(f"{a[n]:.6f} / {b[n]:.6f}" for n in NAMES) + " |")
    largest = max(
        abs(a[n] - b[n]) / max(1.0, abs(a[n])) for a, b in zip(one, two, strict=True) for n in NAMES[:-1]
    )
    print(f"\none process / two; largest difference, relative where above 1: {largest:.1e}")
    sys.exit(largest > 1e-5)


if __name__ == "__main__":
    main()
