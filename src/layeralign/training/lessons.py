"""Which rows each step trains on, and what the start policy says at its default exit.

Every draw is a function of (seed, step): the state of all of them is the step's number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from layeralign._util import files
from layeralign._util.progress import Progress
from layeralign.cases.case import Case
from layeralign.decode.decoding import Decoding
from layeralign.decode.sampling import seed_of
from layeralign.errors import LayeralignError
from layeralign.training.exit_mix import ExitMix
from layeralign.training.parallel import Workers
from layeralign.training.policy import Policy
from layeralign.training.rollout import Features, Row, answers
from layeralign.training.settings import Settings

_CHUNK = 64
_ANSWERS = "start.json"


@dataclass(frozen=True)
class Plan:
    """One step's rows: those that are trained at drawn exits, and those that hold the default exit."""

    trained: list[Row]
    kept: list[Row]


class Lessons:
    """Draws each step's rows from the training cases."""

    def __init__(self, cases: Sequence[Case], settings: Settings, default: int, processes: int = 1) -> None:
        self._settings, self._default = settings, default
        self._harmful = [case for case in cases if case.kind == "harmful"]
        self._others = [case for case in cases if case.kind != "harmful"]
        self._all = list(cases)
        n_kept = round(settings.rows * settings.keep_share)
        n_harmful = round((settings.rows - n_kept) * settings.harmful_share)
        self._sizes = n_harmful, settings.rows - n_kept - n_harmful, n_kept
        for n, pool, kind, why in (
            (n_harmful, self._harmful, "harmful", f"harmful_share {settings.harmful_share}"),
            (self._sizes[1], self._others, "benign or vqa", "to hold what the model should answer"),
        ):
            if n and not pool:
                raise LayeralignError(f"cases: none is {kind}, and training wants some ({why})")
        if settings.harmful_share > 0 and n_harmful == 0:
            raise LayeralignError(f"rows {settings.rows}: too few, none of them would be harmful")
        if n_harmful + self._sizes[1] < processes * settings.minibatches:
            raise LayeralignError(
                f"rows {settings.rows}: after the kept ones too few are left to train on; expected at "
                f"least one for each of {settings.minibatches} minibatches in {processes} processes"
            )

    def plan(self, step: int, mix: ExitMix) -> Plan:
        """The rows of a step (from 0): cases without replacement until all were used, exits by `mix`."""
        n_harmful, n_others, _ = self._sizes
        rng = np.random.default_rng(seed_of(self._settings.seed, "exits", step))
        exits = [*mix.draw(rng, n_harmful), *mix.draw(rng, n_others)]
        kept = [(case, self._default) for case in self._kept(step)]
        return Plan(list(zip(self._trained(step), exits, strict=True)), kept)

    def used(self) -> list[Case]:
        """Every case that some step trains on or keeps."""
        steps = range(self._settings.steps)
        ids = {case.id for step in steps for case in (*self._kept(step), *self._trained(step))}
        return [case for case in self._all if case.id in ids]

    def _trained(self, step: int) -> list[Case]:
        n_harmful, n_others, _ = self._sizes
        harmful = self._take("harmful", self._harmful, step * n_harmful, n_harmful)
        return harmful + self._take("others", self._others, step * n_others, n_others)

    def _kept(self, step: int) -> list[Case]:
        return self._take("kept", self._all, step * self._sizes[2], self._sizes[2])

    def _take(self, name: str, pool: list[Case], start: int, n: int) -> list[Case]:
        """Items start to start + n of an endless row of shuffled passes over the pool."""
        found = []
        orders: dict[int, np.ndarray] = {}
        for position in range(start, start + n):
            turn, at = divmod(position, len(pool))
            if turn not in orders:
                rng = np.random.default_rng(seed_of(self._settings.seed, name, turn))
                orders[turn] = rng.permutation(len(pool))
            found.append(pool[orders[turn][at]])
        return found


class StartAnswers:
    """Greedy answers of the start policy at its default exit, each made once."""

    def __init__(self, policy: Policy, features: Features, decoding: Decoding) -> None:
        self._policy, self._features, self._decoding = policy, features, decoding
        self._known: dict[str, list[int]] = {}

    def make(self, cases: Sequence[Case], workers: Workers, out: Path) -> None:
        """Answer all cases, in batches that depend on nothing else; call it once, before training.

        The answers are kept in `out`, in a file that only its owner can read, for a training that goes on.
        """
        file = out / _ANSWERS
        if file.exists():
            self._known = json.loads(file.read_text(encoding="utf-8"))
            return
        chunks = workers.share([cases[at : at + _CHUNK] for at in range(0, len(cases), _CHUNK)])
        made: list[tuple[str, list[int]]] = []
        with Progress("start answers", sum(map(len, chunks)), speaks=workers.main) as progress:
            for chunk in chunks:
                made += self._answers(chunk)
                progress.advance(len(chunk))
        self._known = dict(workers.gather(made))
        if workers.main:
            files.write(file, json.dumps(self._known), private=True)
        workers.wait()

    def _answers(self, chunk: Sequence[Case]) -> list[tuple[str, list[int]]]:
        vlm = self._policy.vlm
        rows = [(case, vlm.exits.default) for case in chunk]
        seen = [self._features.of(row) for row in rows]
        with self._policy.reference():
            made = answers(vlm, rows, seen, self._decoding, batch_size=_CHUNK)
        return [(case.id, said.tokens) for case, said in zip(chunk, made, strict=True)]

    def tokens(self, case: Case) -> list[int]:
        """The answer's token ids, its end included where it ended."""
        return self._known[case.id]


@torch.no_grad()
def right_answer(policy: Policy, case: Case, start: StartAnswers) -> list[int]:
    """What supervised baselines teach: the case's reference; else a refusal, or the start policy's answer.

    A harmful case without reference is taught the refusal `STOCK_REFUSAL`, any other what the start
    policy answers at its default exit.
    """
    text = case.reference
    if text is None and case.kind != "harmful":
        return start.tokens(case)
    names = policy.vlm.tokenizer
    ids = names(STOCK_REFUSAL if text is None else text, add_special_tokens=False)["input_ids"]
    unsayable = set(policy.vlm.unsayable)  # a word that the tokenizer does not know, above all
    return [*(token for token in ids if token not in unsayable), min(policy.vlm.eos_tokens)]


STOCK_REFUSAL = "I'm sorry, but I can't help with that."
