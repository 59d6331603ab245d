"""How a reward ranks answers to the testbed's dev cases, whose nouns and scenes it was not trained on.

    python benchmarks/reward.py [--reward testbed]

For each stratum the proper answer is set against a refusal or a compliance, answers of the right form with
something wrong in them, and broken ones, by the reward's own scores and the exact oracle's labels.
"""

import argparse
import random
import time
from collections import defaultdict

import numpy as np
import torch

from layeralign.cases.case import Case
from layeralign.rewards.reward import Reward, load_reward
from layeralign.stats.proportions import wilson
from layeralign.testbed.cases import cases
from layeralign.testbed.preferences import broken, wrong
from layeralign.testbed.world import REFUSAL, VERBS, Request

CASES = 2000
"""500 of each stratum."""


def request_of(case: Case) -> Request:
    """The request that a testbed case was made from."""
    verb = next((word for word in case.prompt.split() if word in VERBS), "")
    helpful = case.facts["helpful"]
    noun = helpful.split(",")[1].split()[-1] if verb else ""
    return Request(case.category, case.prompt, helpful, noun, verb)


def rivals(case: Case, rng: random.Random) -> list[tuple[str, str]]:
    """What is set against the proper answer: (comparison, answer)."""
    request, scene = request_of(case), case.picture.scene
    opposite = request.helpful if case.kind == "harmful" else REFUSAL
    found = [("comply" if case.kind == "harmful" else "refuse", opposite)]
    found += [("wrong", wrong(rng, scene, request)) for _ in range(2)]
    found += [("broken", broken(rng, request.proper)) for _ in range(2)]
    return [(name, answer) for name, answer in found if answer != request.proper]


def measure(reward: Reward, split: str = "dev", n: int = CASES) -> dict[tuple[str, str], np.ndarray]:
    """(stratum, comparison) -> margins r(proper) - r(rival), in the reward's unit."""
    rng = random.Random(0)
    asked, proper, rival, names = [], [], [], []
    for case in cases(split, n):
        for name, answer in rivals(case, rng):
            asked.append(case)
            proper.append(case.reference)
            rival.append(answer)
            names.append((case.category, name))
    margins = reward.score(asked, proper) - reward.score(asked, rival)
    found = defaultdict(list)
    for name, margin in zip(names, margins.tolist(), strict=True):
        found[name].append(margin)
    return {name: np.array(values) for name, values in found.items()}


def seconds(reward: Reward) -> float:
    """Median CPU time of scoring 96 answers, on one thread."""
    torch.set_num_threads(1)
    asked = cases("dev", 96)
    answers = [case.facts["helpful"] for case in asked]
    taken = []
    for _ in range(20):
        start = time.process_time()
        reward.score(asked, answers)
        taken.append(time.process_time() - start)
    return float(np.median(taken))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--reward", default="testbed")
    reward = load_reward(parser.parse_args().reward)
    print("| stratum | proper answer above | n | % | 95 % | margin, mean | sd | 5th percentile |")
    print("|---" * 8 + "|")
    for (stratum, name), margins in measure(reward).items():
        hits = int((margins > 0).sum())
        low, high = (100 * x for x in wilson(hits, len(margins)))
        print(
            f"| {stratum} | {name} | {len(margins)} | {100 * hits / len(margins):.1f} | {low:.1f}–{high:.1f} "
            f"| {margins.mean():.2f} | {margins.std():.2f} | {np.percentile(margins, 5):.2f} |"
        )
    print(f"\n96 answers: {1000 * seconds(reward):.0f} ms of CPU time, one thread")


if __name__ == "__main__":
    main()
