"""How far a server's log-probabilities are from those of the scanned model at each exit.

A server that gives the largest log-probabilities of each of an answer's tokens shows far more than its words:
exits with the same answers differ in them, and so does a model that was trained a few steps further.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from layeralign.analysis.results import Results
from layeralign.cases.case import Case
from layeralign.decode.decoding import Decoding
from layeralign.decode.prompts import encode, prompt_tokens
from layeralign.errors import LayeralignError
from layeralign.gating.questions import TOP
from layeralign.vlm.checkpoint import find_model
from layeralign.vlm.families.registry import family_of
from layeralign.vlm.identity import identity
from layeralign.vlm.load import load
from layeralign.vlm.vlm import Vlm

ROWS = 8
"""Exits that are computed together."""


@dataclass(frozen=True)
class Scanned:
    """The scanned model, twice.

    Attributes:
        vlm: the model.
        other: the same in another number format. The differences between the two are what a format explains.
    """

    vlm: Vlm
    other: Vlm

    @classmethod
    def load(
        cls,
        given: str | Path,
        run: Results,
        *,
        revision: str | None = None,
        adapter: str | Path | None = None,
    ) -> Scanned:
        """Load the model that was scanned.

        Args:
            given: its folder, hub id or name.
            run: the run of the scan.
            revision: the revision of a hub id.
            adapter: the folder of its adapter.

        Raises:
            LayeralignError: it cannot be loaded, or it is not the model of the run.
        """
        checkpoint, scanned = find_model(given, revision), str(run.identity.get("variant"))
        variants = family_of(checkpoint.name, checkpoint.config()).variants
        options: dict[str, Any] = {
            "revision": revision,
            "adapter": adapter,
            "variant": next((name for name in variants if scanned.startswith(f"{name}: ")), None),
            "allow_base": "base" in run.identity,
        }
        vlm = load(given, **options)
        found = identity(vlm)
        parts = ("files", "adapter", "family", "variant", "template")
        if differ := [part for part in parts if found[part] != run.identity.get(part)]:
            raise LayeralignError(
                f"config {vlm.checkpoint.name}: differs in {differ[0]} from the model of run {run.path}; "
                "give the model that was scanned, or none to compare the answers alone"
            )
        other = "float16" if vlm.model.dtype == torch.bfloat16 else "bfloat16"
        return cls(vlm, load(given, dtype=other, **options))

    @torch.inference_mode()
    def distances(
        self, run: Results, exits: Sequence[int], case: Case, text: str, told: Sequence[Sequence[float]]
    ) -> NDArray[np.float64] | None:
        """Return how far a server's log-probabilities are from this model's at each exit, in nats.

        For each token of the answer the largest log-probabilities of both are compared by rank, so that no
        names of tokens are needed: they differ between servers. The distance is the mean absolute difference.
        The two formats of this model are compared in as many of each token as the server gives.

        Args:
            run: the run, for its decoding settings.
            exits: the exits.
            case: the question, with its picture.
            text: the server's answer.
            told: for each token of the answer, with or without its end token, the largest log-probabilities.

        Returns:
            The distance of the server and that of `other`, at each exit, [2, exits]; None where the answer's
            text has another number of tokens here, or more than were asked for.
        """
        decoding = Decoding(**run.identity["decoding"])
        if not 0 < len(told) <= decoding.max_new_tokens:
            return None
        # tokenizers differ in whether an answer's first space is a token's own
        texts = dict.fromkeys((text, text.lstrip()))
        lines = [self.vlm.tokenizer(one, add_special_tokens=False)["input_ids"] for one in texts]
        found = []
        for line in lines:
            if len(told) - len(line) in (0, 1):
                own, other = (
                    _largest(vlm, exits, case, decoding, line, told) for vlm in (self.vlm, self.other)
                )
                found.append(np.array([[_apart(told, each) for each in own], list(map(_apart, own, other))]))
        found = [each for each in found if np.isfinite(each).all()]
        return min(found, key=lambda each: each[0].min(), default=None)


def _largest(
    vlm: Vlm,
    exits: Sequence[int],
    case: Case,
    decoding: Decoding,
    line: Sequence[int],
    told: Sequence[Sequence[float]],
) -> list[list[list[float]]]:
    """Return the largest log-probabilities of as many tokens as are told, at each exit, as many of each."""
    features = encode(vlm, [(case, exit) for exit in exits])
    prompt = prompt_tokens(vlm, case, features[0], decoding)  # a picture has as many tokens at every exit
    found: list[list[list[float]]] = []
    for at in range(0, len(features), ROWS):
        rows = features[at : at + ROWS]
        ids = torch.tensor([[*prompt, *line]] * len(rows), device=vlm.device)
        inside = (torch.arange(ids.shape[1], device=vlm.device) < len(prompt)).expand_as(ids)
        states = vlm.hidden(ids, inside, rows)[:, len(prompt) - 1 :][:, : len(told)]
        found += vlm.logits(states).float().log_softmax(-1).topk(TOP).values.tolist()
    sizes = list(map(len, told))
    return [[one[:size] for one, size in zip(each, sizes, strict=True)] for each in found]


def _apart(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    """Mean absolute difference of the largest log-probabilities of each token, by rank."""
    each = []
    for pair in zip(one, other, strict=True):
        size = min(map(len, pair))
        mine, theirs = (np.sort(values)[::-1][:size] for values in pair)
        each.append(np.abs(mine - theirs).mean())
    return float(np.mean(each))
