"""What a sequential scan saves against the full grid, and whether it decides the same.

    python benchmarks/sequential.py --models testbed out/testbed/seed-2 > benchmarks/results/sequential.md

The full grid of the testbed's dev split is scanned once for each model. From its verdicts, sequential scans are
replayed in many orders, by the code that plans real ones. Then one is made for real, and timed against the grid.
Decisions of the grid: the ordinary paired test, two-sided, corrected over the exits, p < 0.05. A grid can be made
larger than it need be, and then more is saved: so it is also told what the smallest one takes that decides like the
whole, which nobody knows beforehand.
"""

import argparse
import os
import platform
import time
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import torch

import layeralign
from layeralign.analysis.results import Results
from layeralign.analysis.rows import Rows, flags, pair
from layeralign.analysis.sequential import (
    ALPHA,
    Key,
    Stop,
    StoppingRule,
    harmful,
    looks,
    stops,
    unsafe,
    wanted,
)
from layeralign.runs.columns import HARMFUL, UNSAFE
from layeralign.runs.opening import open_run
from layeralign.stats.confidence_sequences import share_confidence_sequence
from layeralign.stats.paired import p_value

Verdicts = Mapping[int, Mapping[str, bool | None]]
SCAN = {"max_new_tokens": 24, "batch_size": 128}


def replay(
    rule: StoppingRule, keys: list[Key], full: Verdicts, default: int
) -> tuple[dict[int, Stop], dict[int, int]]:
    """What a sequential scan would have found, and how many harmful cases it would have asked, at each exit."""
    ids = [id for id, *_ in keys]
    until = dict.fromkeys(full, 0)
    while True:
        known = {exit: {id: full[exit][id] for id in ids[:n]} for exit, n in until.items()}
        found = stops(rule, keys, known, default)
        then = wanted(found, full, default, len(keys))
        if then == until:
            return found, until
        until = then


def decisions(rows: Mapping[int, Rows], ids: Collection[str], default: int) -> dict[int, str]:
    """`above`, `below` or neither at each exit, by the ordinary test on these cases."""
    said = {}
    for exit in rows.keys() - {default}:
        asked = [rows[at].where(rows[at].case_in(ids)) for at in (default, exit)]
        pairs = pair(*(flags(one, one.verdict == UNSAFE) for one in asked))
        p = p_value(pairs, "two-sided").p * (len(rows) - 1) if pairs else 1.0
        said[exit] = "" if p >= ALPHA else "above" if pairs.difference.mean() > 0 else "below"
    return said


def smallest(rows: Mapping[int, Rows], ids: list[str], default: int) -> int:
    """From which number of cases on, in this order, the ordinary test decides as on all of them."""
    end = decisions(rows, ids, default)
    needed = len(ids)
    for n in reversed(list(looks(len(ids)))):
        if decisions(rows, {*ids[:n]}, default) != end:
            break
        needed = n
    return needed


def replays(folder: Path, orders: int, precisions: list[float]) -> None:
    """Print the tables of one model's replays."""
    run = Results.load(folder)
    by_exit, default = run.rows(run.asr_judge()), run.exits.default
    in_order = {seed: harmful(run.given, seed) for seed in range(orders)}
    others = len(run.given) - len(in_order[0])
    full = unsafe(by_exit)
    rows = {exit: some.where(some.role == HARMFUL) for exit, some in by_exit.items()}
    truth = {exit: sum(map(bool, flags.values())) / len(flags) for exit, flags in full.items()}
    grid = decisions(rows, full[default].keys(), default)
    cases = len(in_order[0])
    least = [smallest(rows, [id for id, *_ in keys], default) / cases for keys in in_order.values()]
    print(f"\nThe smallest grid that decides like the whole one would have saved {100 * (1 - mean(least)):.1f} % "
          f"({100 * (1 - max(least)):.1f} to {100 * (1 - min(least)):.1f} over {orders} orders).")  # fmt: skip
    for precision in precisions:
        saved, kinds, inside, close = [], Counter(), [], []
        stopped: dict[int, list[Stop]] = {exit: [] for exit in full}
        for seed, keys in in_order.items():
            found, until = replay(StoppingRule(precision, seed), keys, full, default)
            asked_rows = sum(n + round(others * n / cases) for n in until.values())
            saved.append(1 - asked_rows / (len(full) * (cases + others)))
            for exit, stop in found.items():
                stopped[exit].append(stop)
                asked = keys[: until[exit]]
                told = [bool(full[exit][id]) for id, *_ in asked]
                low, high, _ = share_confidence_sequence(
                    told, [p for _, p, _ in asked], [q for _, _, q in asked]
                )
                inside.append((low or 0.0) <= truth[exit] <= (high or 1.0))
                if stop.why == "precise":
                    close.append(abs(sum(told) / len(told) - truth[exit]) <= precision)
                if exit != default:
                    kinds[grid[exit] or "no difference", stop.why] += 1
        print(f"\n### precision {precision}: {100 * mean(saved):.1f} % of {len(full) * (cases + others):,} answers saved "
              f"({100 * min(saved):.1f} to {100 * max(saved):.1f} over {orders} orders)\n")  # fmt: skip
        print(
            "| exit | ASR of the grid % | grid decides | sequential decides | harmful cases asked, median (most) |"
        )
        print("|---|---|---|---|---|")
        for exit, some in sorted(stopped.items()):
            said = ", ".join(f"{why} {n}" for why, n in Counter(stop.why for stop in some).most_common())
            ats = sorted(stop.at for stop in some)
            named = f"**{exit}**" if exit == default else str(exit)
            print(f"| {named} | {100 * truth[exit]:.1f} | {grid.get(exit) or '–'} | {said} | "
                  f"{ats[len(ats) // 2]} ({ats[-1]}) of {cases} |")  # fmt: skip
        differ = sum(n for (g, _), n in kinds.items() if g != "no difference")
        agreed = sum(n for (g, s), n in kinds.items() if g == s)
        wrong = sum(n for (g, s), n in kinds.items() if s in ("above", "below") and g != s)
        print(f"\nOf {differ} exits that differ by the grid, {agreed} were said to, the right way; the others were "
              f"left at {', '.join(f'{s} {n}' for (g, s), n in kinds.items() if g not in ('no difference', s)) or 'nothing'}. "
              f"Of {kinds.total() - differ} that do not, {wrong} were said to. "
              f"The grid's ASR lay in the shown interval {100 * mean(inside):.1f} % of the time, and within "
              f"± {100 * precision:g} points of it, where it was called precise, {100 * mean(close):.1f} %.")  # fmt: skip


def timed(model: str, cases: str, limit: int, out: Path, precision: float | None) -> tuple[int, float]:
    """Answers and seconds of a scan."""
    vlm = layeralign.load(model)
    layeralign.scan(vlm, cases, out / "warm", exits="default", limit=40, **SCAN)
    start = time.monotonic()
    layeralign.scan(vlm, cases, out / "run", limit=limit, precision=precision, **SCAN)
    took = time.monotonic() - start
    with open_run(out / "run") as run:
        return len(run.answered()), took


def main() -> None:
    """Scan, replay, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["testbed"])
    parser.add_argument("--limit", type=int, default=2000, help="cases, a quarter of them harmful")
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--precisions", type=float, nargs="+", default=[0.05, 0.1])
    arguments = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}; testbed:dev, {arguments.limit} cases. `python benchmarks/sequential.py`")  # fmt: skip
    for model in arguments.models:
        with TemporaryDirectory() as folder:
            whole, grid_s = timed(model, "testbed:dev", arguments.limit, Path(folder) / "grid", None)
            print(f"\n## {Path(model).name}")
            replays(Path(folder) / "grid" / "run", arguments.orders, arguments.precisions)
            least = arguments.precisions[0]
            rows, seconds = timed(model, "testbed:dev", arguments.limit, Path(folder) / "some", least)
        print(
            f"\nFor real, precision {least}: {rows:,} answers in {seconds:.0f} s; the grid {whole:,} in {grid_s:.0f} s."
        )


if __name__ == "__main__":
    main()
