"""How often `check --endpoint` names the exit that is served, and how often it takes another model for this one.

    python benchmarks/runtimes/endpoint.py --others out/adapters/dpo ... > benchmarks/results/endpoint.md

The run holds the bundled model's answers. The deployment is the same model in bfloat16, at each exit. Each trial draws
cases from the run, chooses questions among them, and reads the deployment's answers to them, with and without their
log-probabilities. The adapters of --others make other models, which were trained further from the bundled one.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from serving import line

import layeralign
from layeralign import benchmarks
from layeralign.analysis.results import Results
from layeralign.cases.case import Case
from layeralign.decode.decoding import Decoding
from layeralign.decode.prompts import encode, prompt_tokens
from layeralign.gating import endpoint, questions
from layeralign.gating.endpoint import Located
from layeralign.gating.log_probs import Scanned
from layeralign.stats.proportions import wilson
from layeralign.vlm.vlm import Vlm

FEW = endpoint.FEWEST
Answers = Mapping[tuple[str, int, int], str]


@dataclass
class Deployment:
    """A model that is served, and what was read of it.

    Attributes:
        name: its name in the result.
        vlm: the model.
        scanned: the scanned one.
        run: the run.
        cases: case id -> case with its picture.
        answers: its answers.
    """

    name: str
    vlm: Vlm
    scanned: Scanned
    run: Results
    cases: Mapping[str, Case]
    answers: Answers
    far: dict[tuple[str, int], np.ndarray | None] = field(default_factory=dict)

    def distances(self, id: str, exit: int) -> np.ndarray | None:
        """See `log_probs.distances`; computed at the first use."""
        if (id, exit) not in self.far:
            text, exits = self.answers[id, exit, 0], sorted({key[1] for key in self.run.answers})
            told = self.told(self.cases[id], exit, text)
            self.far[id, exit] = self.scanned.distances(self.run, exits, self.cases[id], text, told)
        return self.far[id, exit]

    @torch.inference_mode()
    def told(self, case: Case, exit: int, text: str) -> list[list[float]]:
        """The largest log-probabilities of each token of an answer, as a server gives them."""
        vlm, decoding = self.vlm, Decoding(**self.run.identity["decoding"])
        (feature,) = encode(vlm, [(case, exit)])
        prompt = prompt_tokens(vlm, case, feature, decoding)
        ids = torch.tensor([[*prompt, *vlm.tokenizer(text, add_special_tokens=False)["input_ids"]]])
        states = vlm.hidden(ids, torch.arange(ids.shape[1])[None] < len(prompt), [feature])
        found = vlm.logits(states)[0, len(prompt) - 1 :].float().log_softmax(-1)
        return found[: decoding.max_new_tokens].topk(questions.TOP).values.tolist()

    def trial(self, exit: int, ids: Sequence[str], most: int, *, compare: bool) -> Located:
        """What the check says of an exit, with at most so many questions among these cases."""
        exits = sorted({key[1] for key in self.run.answers})
        told = [[self.run.answers[id, at, 0].split() for at in exits] for id in ids]
        chosen = questions.choose(told)[:most]
        replies = [(self.answers[ids[at], exit, 0].split(), told[at]) for at in chosen]
        far = [self.distances(ids[at], exit) for at in chosen] if compare else []
        known = [one for one in far if one is not None]
        fits = endpoint.fits(self.run, exits, replies, far)
        return Located(fits, len(chosen), len(chosen), len(known))


def balanced(made: Deployment, exits: Sequence[int], drawn: int, trials: int) -> None:
    """Print how often the check of a server that answers from two exits names exits, but not the second one."""
    rng, ids = random.Random(2), list(made.cases)
    print(line(("answers from the second exit", "exits named without the second one")))
    print("|---" * 2 + "|")
    pairs = [pair for pair in permutations(exits, 2) for _ in range(trials)]
    for second in (0.1, 0.2, 0.3, 0.5):
        missed = 0
        for pair in pairs:
            draw = rng.sample(ids, drawn)
            told = [[made.run.answers[id, at, 0].split() for at in exits] for id in draw]
            chosen = questions.choose(told)[: questions.QUESTIONS]
            served = rng.choices(pair, (1 - second, second), k=len(chosen))
            replies = [
                (made.answers[draw[at], exit, 0].split(), told[at])
                for at, exit in zip(chosen, served, strict=True)
            ]
            fits = endpoint.fits(made.run, exits, replies)
            named = [fit.exit for fit in Located(fits, len(chosen), len(chosen)).exits]
            missed += bool(named) and pair[1] not in named
        print(line((f"{second:.0%}", share(missed, len(pairs)))), flush=True)
    print()


def noise(run: Results, deployed: Answers) -> tuple[int, int]:
    """Questions at which another exit agrees more with the deployment than its own exit does, of those that differ."""
    more = differ = 0
    exits = sorted({key[1] for key in run.answers})
    for (id, exit, _), said in deployed.items():
        own = questions.agreement(said.split(), run.answers[id, exit, 0].split())
        others = [questions.agreement(said.split(), run.answers[id, at, 0].split()) for at in exits]
        more += sum(other > own for other in others)
        differ += sum(other != own for other in others)
    return more, differ


def share(hits: int, n: int) -> str:
    """A share in percent, with its 95 % interval."""
    low, high = wilson(hits, n)
    return f"{hits} of {n}: {100 * hits / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


HOW = (("answers", questions.QUESTIONS, False), ("log-probabilities", questions.QUESTIONS, True),
       (f"log-probabilities, {FEW} questions", FEW, True))  # fmt: skip
"""What is compared, with how many questions."""
TAKEN = (
    "model", "taken for the scanned one by answers", f"by the log-probabilities of {FEW}", "answers compared",
    "distance from its exit, nats: least, median, 99 %, largest", "from the nearest other exit",
)  # fmt: skip


def named(served: Deployment, exits: Sequence[int], drawn: int, trials: int) -> None:
    """Print how often each exit of the scanned model is named."""
    rng, ids = random.Random(0), list(served.cases)
    print(
        line(("served exit", "compared", "named first", "among the exits that fit", "exits that fit, mean"))
    )
    print("|---" * 5 + "|")
    totals = {how: [0, 0, 0] for how, *_ in HOW}
    for exit in exits:
        draws = [rng.sample(ids, drawn) for _ in range(trials)]
        for how, most, compare in HOW:
            found = [served.trial(exit, draw, most, compare=compare) for draw in draws]
            first = sum(one.fits[0].exit == exit for one in found)
            inside = sum(exit in [fit.exit for fit in one.exits] for one in found)
            alone = sum([fit.exit for fit in one.exits] == [exit] for one in found)
            fitting = sum(len(one.exits) for one in found) / trials
            totals[how] = [
                total + more for total, more in zip(totals[how], (first, inside, alone), strict=True)
            ]
            print(
                line((str(exit), how, f"{first} of {trials}", f"{inside} of {trials}", f"{fitting:.2f}")),
                flush=True,
            )
    print()
    for how, (first, inside, alone) in totals.items():
        n = trials * len(exits)
        print(
            f"By {how}: named first {share(first, n)}; among the exits that fit {share(inside, n)}; the only exit"
        )
        print(f"that fits {share(alone, n)}.\n")


def spread(made: Deployment, exits: Sequence[int]) -> tuple[str, str]:
    """Quantiles of the distance from the served exit, and of that from the nearest other exit."""
    rows = [(exits.index(exit), far[0]) for (_, exit), far in made.far.items() if far is not None]
    own = [far[at] for at, far in rows]
    other = [np.delete(far, at).min() for at, far in rows]
    each = (np.quantile(one, [0, 0.5, 0.99, 1]) for one in (own, other))
    least, most = (", ".join(f"{one:.3f}" for one in quantiles) for quantiles in each)
    return least, most


def taken(made: Deployment, exits: Sequence[int], drawn: int, trials: int) -> str:
    """A row: how often a model is taken for the scanned one, and how far its log-probabilities are."""
    rng, cells = random.Random(1), []
    draws = [(exit, rng.sample(list(made.cases), drawn)) for exit in exits for _ in range(trials)]
    for _, most, compare in (HOW[0], HOW[-1]):
        found = [made.trial(exit, draw, most, compare=compare) for exit, draw in draws]
        cells.append(share(sum(bool(one.exits) for one in found), len(draws)))
    return line((made.name, *cells, str(len(made.far)), *spread(made, exits)))


def main() -> None:
    """Scan, draw trials, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--split", default="testbed:test")
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--drawn", type=int, default=150, help="cases that a trial draws")
    parser.add_argument("--trials", type=int, default=25, help="trials per exit")
    parser.add_argument("--others", nargs="*", type=Path, default=[], help="adapters that make other models")
    parser.add_argument("--out", type=Path, default=Path("out/endpoint"))
    given = parser.parse_args()
    settings = {"limit": given.cases, "max_new_tokens": 24}
    run = layeralign.scan("testbed", given.split, given.out / "run", **settings).results
    scanned = Scanned.load("testbed", run)
    exits = sorted({key[1] for key in run.answers})
    cases = {case.id: case for case in benchmarks.cases(given.split, limit=given.cases, seed=0)}
    assert cases.keys() == {case.id for case in run.cases}

    def deployment(name: str, vlm: Vlm) -> Deployment:
        answers = layeralign.scan(vlm, given.split, given.out / name, **settings).results.answers
        return Deployment(name, vlm, scanned, run, cases, answers)

    others = [deployment(path.name, layeralign.load("testbed", adapter=path)) for path in given.others]
    served = deployment("bfloat16", layeralign.load("testbed", dtype="bfloat16"))
    print(f"# Which exit a running server answers from\n\n{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, "
          f"{os.cpu_count()} cores; {given.split}, {len(cases)} cases; each trial draws {given.drawn} of them\n")  # fmt: skip
    named(served, exits, given.drawn, given.trials)
    print(f"Another exit agrees more, where it differs: {share(*noise(run, served.answers))}.\n")
    print("By answers, a load balancer of two exits:\n")
    balanced(served, exits, given.drawn, max(1, given.trials // 12))
    print(line(TAKEN))
    print("|---" * len(TAKEN) + "|")
    for made in (served, *others):
        print(taken(made, exits, given.drawn, max(1, given.trials // 12)), flush=True)


if __name__ == "__main__":
    main()
