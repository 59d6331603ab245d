"""What the coherence judge's limits are worth: answers that make sense, and the same answers spoilt.

    python benchmarks/coherence.py [--model FOLDER] > benchmarks/results/coherence.md

Without --model: the testbed as its own reference, on answers that its exact oracle calls coherent. With it: that
language model, on the English answers of src/layeralign/judges/text/refusal_labels.jsonl, which have no requests of their
own: each is taken to answer "Can you help me with this?".
"""

import argparse
import json
import platform
import random
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import files

import numpy as np

from layeralign.cases.case import Case
from layeralign.judges.coherence import CoherenceJudge
from layeralign.stats.proportions import wilson
from layeralign.testbed.cases import cases
from layeralign.testbed.world import REFUSAL

ASK = "Can you help me with this?"
N = 400
"""Cases of the testbed."""


def english() -> list[tuple[Case, str]]:
    """The labelled answers."""
    lines = (
        files("layeralign.judges.text")
        .joinpath("refusal_labels.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    return [(Case(str(i), ASK, "benign"), json.loads(line)["answer"]) for i, line in enumerate(lines)]


def testbed() -> list[tuple[Case, str]]:
    """The right answer to each case: a refusal where it has to be refused, else the helpful one."""
    return [(case, str(case.reference)) for case in cases("dev", N)]


def spoilt(asked: list[tuple[Case, str]]) -> dict[str, list[tuple[Case, str]]]:
    """The answers, and what is made of them."""
    rng = random.Random(0)
    words = sorted({word for _, answer in asked for word in answer.split()})
    letters = "abcdefghijklmnopqrstuvwxyz     "

    def each(make: Callable[[str], str]) -> list[tuple[Case, str]]:
        return [(case, make(answer)) for case, answer in asked]

    refusals = [(case, answer) for case, answer in asked if answer == REFUSAL]
    return {
        "as they are": asked,
        **({"of these, the testbed's refusal": refusals} if refusals else {}),
        "their words shuffled": each(lambda a: " ".join(rng.sample(a.split(), len(a.split())))),
        "as many words of all answers": each(lambda a: " ".join(rng.choice(words) for _ in a.split())),
        "as many letters": each(lambda a: "".join(rng.choice(letters) for _ in a) or "x"),
        "their first three words, eight times": each(lambda a: " ".join(a.split()[:3] * 8)),
        "the answer three times": each(lambda a: " ".join([a] * 3)),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="testbed")
    parser.add_argument("--name", help="what the model is called in the table")
    given = parser.parse_args()
    judge = CoherenceJudge.load(given.model)
    limits = judge.record()["limits"]
    asked = testbed() if given.model == "testbed" else english()
    command = "python benchmarks/coherence.py" + (" --model FOLDER" if given.model != "testbed" else "")
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}: `{command}`, reference: "
          f"{given.name or given.model}; limits: log perplexity {limits['log_perplexity']:.2f}, repetition "
          f"{limits['repetition']}\n")  # fmt: skip
    print(
        "| answers | n | called coherent, % | log perplexity, 5 % / median / 95 % | repetition, median / 95 % |"
    )
    print("|---|---|---|---|---|")
    for name, made in spoilt(asked).items():
        scored = [word for word in judge.judge_all(made) if word.scores]
        costs, repeats = (
            np.array([word.scores[measure] for word in scored])
            for measure in ("log_perplexity", "repetition")
        )
        coherent = sum(word.coherent is True for word in scored)
        low, high = wilson(coherent, len(scored))
        spread = " / ".join(f"{x:.2f}" for x in np.quantile(costs, [0.05, 0.5, 0.95]))
        again = " / ".join(f"{x:.2f}" for x in np.quantile(repeats, [0.5, 0.95]))
        share = f"{100 * coherent / len(scored):.1f} ({100 * (low or 0):.1f}–{100 * (high or 0):.1f})"
        print(f"| {name} | {len(scored)} | {share} | {spread} | {again} |", flush=True)


if __name__ == "__main__":
    main()
