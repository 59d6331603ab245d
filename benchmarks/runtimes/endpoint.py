"""How often `check --endpoint` names the exit that is served, and how often it takes another model for this one.

    python benchmarks/runtimes/endpoint.py > benchmarks/results/endpoint.md

The run holds the bundled model's answers. The deployment is the same model with its weights rounded to bfloat16, at
each exit. Each trial draws cases from the run, chooses questions among them, and reads the deployment's answers to
them. Models that were trained further (the runs of `benchmarks/align.py`, with --others) are other models.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import layeralign
from layeralign.analysis.results import Results
from layeralign.gating import endpoint
from layeralign.gating.endpoint import Located
from layeralign.stats.proportions import wilson

Answers = Mapping[tuple[str, int, int], str]


def trial(run: Results, deployed: Answers, exit: int, ids: list[str]) -> Located:
    """What the check says of a deployment at an exit, with questions among these cases."""
    exits = sorted({key[1] for key in run.answers})
    told = [[run.answers[id, at, 0].split() for at in exits] for id in ids]
    chosen = endpoint.choose(told)[: endpoint.QUESTIONS]
    replies = [(deployed[ids[at], exit, 0].split(), told[at]) for at in chosen]
    return Located(endpoint.fits(run, exits, replies), len(chosen), len(chosen))


def noise(run: Results, deployed: Answers) -> tuple[int, int]:
    """Questions at which another exit agrees more with the deployment than its own exit does, of those that differ."""
    more = differ = 0
    exits = sorted({key[1] for key in run.answers})
    for (id, exit, _), said in deployed.items():
        own = endpoint.agreement(said.split(), run.answers[id, exit, 0].split())
        others = [endpoint.agreement(said.split(), run.answers[id, at, 0].split()) for at in exits]
        more += sum(other > own for other in others)
        differ += sum(other != own for other in others)
    return more, differ


def share(hits: int, n: int) -> str:
    """A share in percent, with its 95 % interval."""
    low, high = wilson(hits, n)
    return f"{hits} of {n}: {100 * hits / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    """Scan twice, draw trials, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--split", default="testbed:test")
    parser.add_argument("--cases", type=int, default=800)
    parser.add_argument("--drawn", type=int, default=200, help="cases that a trial draws")
    parser.add_argument("--trials", type=int, default=25, help="trials per exit")
    parser.add_argument("--others", nargs="*", type=Path, default=[], help="runs of other models, same cases")
    parser.add_argument("--out", type=Path, default=Path("out/endpoint"))
    given = parser.parse_args()
    asked = {"cases": given.split, "limit": given.cases, "max_new_tokens": 24}
    run, rng = (
        layeralign.scan(layeralign.load("testbed"), out=given.out / "run", **asked).results,
        random.Random(0),
    )
    rounded = layeralign.load("testbed")
    for weight in rounded.model.parameters():
        weight.data = weight.data.bfloat16().float()
    deployed = layeralign.scan(rounded, out=given.out / "deployed", **asked).results.answers
    exits = sorted({key[1] for key in run.answers})
    ids = [case.id for case in run.cases]
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores; {given.split}, {len(ids)} cases; "
        f"each trial draws {given.drawn} of them\n"
    )
    print("| served exit | named first | among the exits that fit | exits that fit, mean | questions, mean |")
    print("|---|---|---|---|---|")
    first = among = 0
    for exit in exits:
        found = [trial(run, deployed, exit, rng.sample(ids, given.drawn)) for _ in range(given.trials)]
        named = sum(one.fits[0].exit == exit for one in found)
        inside = sum(exit in [fit.exit for fit in one.exits] for one in found)
        first, among = first + named, among + inside
        fitting = sum(len(one.exits) for one in found) / len(found)
        asked = sum(one.asked for one in found) / len(found)
        print(
            f"| {exit} | {named} of {len(found)} | {inside} of {len(found)} | {fitting:.2f} | {asked:.1f} |"
        )
    n = given.trials * len(exits)
    print(f"\nNamed first: {share(first, n)}. Among the exits that fit: {share(among, n)}.")
    print(f"Another exit agrees more, where it differs: {share(*noise(run, deployed))}.")
    for other in given.others:
        theirs = Results.load(other)
        known = {id for id in ids if (id, 0, 0) in theirs.answers}
        if len(known) < given.drawn:
            continue
        taken = same = 0
        for exit in exits:
            for _ in range(max(1, given.trials // 5)):
                found = trial(run, theirs.answers, exit, rng.sample(sorted(known), given.drawn))
                taken, same = taken + 1, same + bool(found.exits)
        print(f"{other}: taken for the scanned model: {share(same, taken)}.")


if __name__ == "__main__":
    main()
