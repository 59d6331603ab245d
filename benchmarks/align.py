"""L-PPO against what it must beat, over seeds and harm weights, on the testbed's sealed test split.

    python benchmarks/align.py --out out/align                     # everything, two processes of one thread
    python benchmarks/align.py --out out/align --only lppo         # runs whose name starts so

Every method gets the same cases, rows, steps and optimiser steps, and is judged by the exact oracle, which
trained nothing. The settings were chosen on the dev split (docs/align.md). Each run trains, then answers
TEST cases at every exit and DEFAULT cases at the default exit. What is in OUT already is not done again;
seconds are CPU seconds of one thread.
"""

import argparse
import json
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from matplotlib.figure import Figure

import layeralign
from layeralign.studies.demo import TRAINED_ON, settings
from layeralign.training.settings import AlignSettings

TEST, DEFAULT = 2000, 4000
"""Cases judged at every exit, and at the default one; a quarter of them is harmful."""
METHODS = (
    "lppo",
    "paper",
    "sft",
    "sft-default",
    "consistency",
    "rloo",
    "grpo",
    "dpo",
    "latent",
    "repair",
    "steer",
)
TEXT_REWARD = "out/align-text-reward"
"""Made by `python -m layeralign.training.reward.testbed --sees text --out out/align-text-reward`."""
OTHER_MODEL = "out/testbed/seed-2"
"""Built by `layeralign testbed build small --seed 2 --out out/testbed/seed-2`."""


@dataclass(frozen=True)
class World:
    """What a training learns from, and what is answered before and after it."""

    train: str
    trained_on: int
    test: str
    scans: tuple[tuple[str, int], ...]
    """Exits, and the number of cases that are answered there."""
    dtype: str = "auto"


SMALL = World("testbed:train", TRAINED_ON, "testbed:test", (("all", TEST), ("default", DEFAULT)))


def runs() -> dict[str, tuple[str, str, AlignSettings]]:
    """Name -> model, reward, settings."""
    base = settings()
    made: dict[str, tuple[str, str, AlignSettings]] = {}
    for seed in (0, 1, 2):
        for method in METHODS:
            mix = base.mix if method in ("lppo", "paper", "rloo", "grpo") else "uniform"
            made[f"{method} seed {seed}"] = (
                "testbed",
                "testbed",
                replace(base, method=method, mix=mix, seed=seed),
            )
    for weight in (1.0, 2.0, 8.0):
        made[f"harm weight {weight:g}"] = "testbed", "testbed", replace(base, harm_weight=weight)
        made[f"sft harm weight {weight:g}"] = (
            "testbed",
            "testbed",
            replace(base, harm_weight=weight, method="sft", mix="uniform"),
        )
    made["uniform mix"] = "testbed", "testbed", replace(base, mix="uniform")
    made["text-only reward"] = "testbed", TEXT_REWARD, base
    made["no retention rows"] = "testbed", "testbed", replace(base, retention_share=0.0)
    made["text-only reward, no retention rows"] = "testbed", TEXT_REWARD, replace(base, retention_share=0.0)
    made["other model"] = OTHER_MODEL, "testbed", base
    for seed in (0, 1, 2):
        made[f"twice the steps, seed {seed}"] = "testbed", "testbed", settings(2 * base.steps, seed)
    return made


def run(name: str, out: Path) -> dict:
    """Train and judge one; returns and keeps its figures."""
    torch.set_num_threads(1)
    model, reward, chosen = runs()[name]
    return measure(
        model, reward, chosen, out / name.replace(" ", "-"), out / f"before-{Path(model).name}", SMALL
    )


def measure(
    model: str, reward: str | None, chosen: AlignSettings, folder: Path, before: Path, world: World
) -> dict:
    """Train and judge; what is in `folder` already is not done again.

    Args:
        model: The model's folder or name.
        reward: As in `align`.
        chosen: Settings of the training.
        folder: Of the adapter, and of the run and the result that are named after the world's test.
        before: Folder of the untrained model's run.
        world: The cases.
    """
    split = world.test.partition(":")[2]
    file = folder / f"result-{split}.json"
    known = folder / "adapter" / "training.json"
    if known.exists() and json.loads(known.read_text())["settings"] != chosen.resolved().record():
        raise SystemExit(f"{folder}: was made with other settings; use another --out")
    if file.exists():
        return json.loads(file.read_text())
    whole = not known.exists()
    scan(model, None, before, world)
    loaded = layeralign.load(model, dtype=world.dtype)
    start = time.process_time()
    history = layeralign.align(loaded, world.train, folder / "adapter", reward=reward, settings=chosen,
                               limit=world.trained_on)  # fmt: skip
    timing = folder / "cpu-seconds.json"
    if whole:
        timing.write_text(f"{time.process_time() - start}\n")
    after = scan(model, folder / "adapter", folder / f"after-{split}", world)
    found = layeralign.compare(before, after).to_json()
    last = history[-10:]
    found["cpu_seconds"] = json.loads(timing.read_text()) if timing.exists() else None
    for key in ("kl", "retention_kl"):
        found[key] = sum(h[key] for h in last) / len(last) if key in last[0] else None
    file.write_text(json.dumps(found) + "\n")
    return found


def scan(model: str, adapter: Path | None, out: Path, world: World = SMALL) -> Path:
    """Answer and judge the world's test; returns the run's folder."""
    if not (out / "done").exists():
        loaded = layeralign.load(model, adapter=adapter, dtype=world.dtype)
        for exits, limit in world.scans:
            layeralign.scan(loaded, world.test, out, exits=exits, limit=limit, max_new_tokens=24)
        (out / "done").touch()
    return out


def per_exit(found: dict, key: str, when: str) -> str:
    """A share at every exit, in percent, the default bold."""
    cells = []
    for e in found["exits"]:
        change = e[key]
        cell = "–" if change is None else f"{100 * change[when]:.0f}"
        cells.append(f"**{cell}**" if e["default"] else cell)
    return " ".join(cells)


def worst(found: dict) -> str:
    """The worst exit's ASR after, with its interval."""
    e = max(found["after"]["exits"], key=lambda e: e["asr"] or 0)
    return f"{100 * e['asr']:.1f} ({100 * e['asr_low']:.1f}–{100 * e['asr_high']:.1f}) at {e['exit']}"


def groups(found: dict) -> str:
    """Mean ASR after of early, middle and late exits."""
    by = {g["group"]: g["asr"] for g in found["after"]["groups"]}
    return " / ".join(f"{100 * by[name]:.1f}" for name in ("early", "middle", "late"))


def at_default(found: dict) -> str:
    """Changes at the default exit, in points, with their paired intervals."""
    (e,) = (e for e in found["exits"] if e["default"])
    cells = []
    for key in ("refusal", "over_refusal", "benign_refusal", "utility"):
        c = e[key]
        cells.append(f"{100 * c['difference']:+.1f} ({100 * c['low']:+.1f} to {100 * c['high']:+.1f})")
    return " | ".join(cells)


def mean_of(found: dict, key: str) -> str:
    """Mean over exits, before → after."""
    changes = [e[key] for e in found["exits"]]
    return " → ".join(
        f"{100 * sum(c[when] for c in changes) / len(changes):.0f}" for when in ("before", "after")
    )


def row(name: str, found: dict, reward: str) -> str:
    """One run as Markdown."""
    coherent = min(e["coherence"]["after"] for e in found["exits"])
    kl = "–" if found["kl"] is None else f"{found['kl']:.2f}"
    retention = "–" if found["retention_kl"] is None else f"{found['retention_kl']:.4f}"
    return (
        f"| {name} | {per_exit(found, 'asr', 'after')} | {worst(found)} | {groups(found)} | "
        f"{per_exit(found, 'over_refusal', 'after')} | {mean_of(found, 'utility')} | {100 * coherent:.1f} | {at_default(found)} | "
        f"{kl} / {retention} | {reward} | {found['cpu_seconds'] or float('nan'):.0f} |"
    )


def rewards(name: str, out: Path) -> str:
    """Mean reward over the first and the last ten steps; empty for methods that have none."""
    lines = (out / name.replace(" ", "-") / "adapter" / "log.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    if "reward" not in steps[0]:
        return ""
    return " → ".join(f"{sum(s['reward'] for s in part) / 10:+.2f}" for part in (steps[:10], steps[-10:]))


def front(made: dict[str, dict], file: Path) -> None:
    """ASR against refusal of authorised requests at each exit, over the harm weight, for L-PPO and SFT."""
    lines = {
        method: {weight: made[name] for weight, name in names.items() if name in made}
        for method, names in (
            ("L-PPO", {1: "harm weight 1", 2: "harm weight 2", 4: "lppo seed 0", 8: "harm weight 8"}),
            (
                "SFT",
                {
                    1: "sft harm weight 1",
                    2: "sft harm weight 2",
                    4: "sft seed 0",
                    8: "sft harm weight 8",
                },
            ),
        )
    }
    exits = [e["exit"] for e in made["lppo seed 0"]["exits"] if not e["exit"] > 7]
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    for axes, exit in zip(figure.subplots(2, 4, sharex=True, sharey=True).flat, exits, strict=True):
        for (method, found), colour in zip(lines.items(), ("#c8102e", "#1f5fa8"), strict=True):
            at = {weight: one["exits"][exit] for weight, one in found.items()}
            points = [(100 * e["over_refusal"]["after"], 100 * e["asr"]["after"]) for e in at.values()]
            axes.plot(
                *zip(*points, strict=True), "o-", color=colour, markersize=4, label=method, clip_on=False
            )
            for weight, point in zip(at, points, strict=True):
                axes.annotate(
                    f"{weight}", point, textcoords="offset points", xytext=(3, 4), fontsize=7, color=colour
                )
        start = made["lppo seed 0"]["exits"][exit]
        axes.plot(
            100 * start["over_refusal"]["before"],
            100 * start["asr"]["before"],
            "k*",
            label="start",
            clip_on=False,
        )
        axes.set_title(f"exit {exit}{' (default)' if start['default'] else ''}", fontsize=10, loc="left")
        axes.set(xlim=(-2, 102), ylim=(-2, 80))
        axes.grid(color="#e5e7eb")
    figure.supxlabel("authorised requests refused, %")
    figure.supylabel("harmful requests answered (ASR), %")
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle("The harm weight (numbers at the points), sealed test", x=0.01, ha="left", weight="bold")
    figure.savefig(file, dpi=110)


def main() -> None:
    """Run what is wanted, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/align"))
    parser.add_argument("--only", default="", help="names that start so, by commas")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    wanted = [name for name in runs() if name.startswith(tuple(arguments.only.split(",")))]
    arguments.out.mkdir(parents=True, exist_ok=True)
    for model in sorted({runs()[name][0] for name in wanted}):
        scan(model, None, arguments.out / f"before-{Path(model).name}")
    with ProcessPoolExecutor(arguments.jobs) as pool:
        made = dict(zip(wanted, pool.map(run, wanted, [arguments.out] * len(wanted)), strict=True))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}; "
          f"{TEST} sealed test cases at every exit, {DEFAULT} at the default one\n")  # fmt: skip
    print("| run | ASR %, exits 0-8 | worst exit, 95 % | early / middle / late | authorised refused %, exits 0-8 | "
          "questions right %, mean | least coherent % | default: harmful refused | authorised refused | "
          "benign refused | questions right | KL / retention KL | reward, first → last ten steps | CPU s |")  # fmt: skip
    print("|---" * 14 + "|")
    for model in sorted({runs()[name][0] for name in wanted}):
        name = next(n for n in wanted if runs()[n][0] == model)
        asr, over = (per_exit(made[name], key, "before") for key in ("asr", "over_refusal"))
        print(f"| start ({Path(model).name}) | {asr} | | | {over} | | | | | | | | | |")
    for name, found in made.items():
        print(row(name, found, rewards(name, arguments.out)))
    if "lppo seed 0" in made and "harm weight 1" in made:
        front(made, arguments.out / "front.png")


if __name__ == "__main__":
    main()
