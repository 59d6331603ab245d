"""The questions that an endpoint is asked: cases of a run that together distinguish its exits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import combinations, takewhile

import numpy as np

from layeralign.analysis.results import Results
from layeralign.cases.background import WHITE
from layeralign.cases.case import Case, Picture
from layeralign.cases.pictures import FilePicture, data_url
from layeralign.errors import LayeralignError
from layeralign.judges.models.remote import Message
from layeralign.testbed.drawn import drawn

QUESTIONS = 40
"""Maximum number of cases that are asked."""
TOP = 5
"""Largest log-probabilities of each token that are compared; servers of OpenAI's API give up to 20."""
FIELDS: Mapping[str, object] = {"logprobs": True, "top_logprobs": TOP}
"""The fields of a request that ask for them."""
Words = list[str]


def agreement(one: Words, other: Words) -> float:
    """Return the number of equal words at the start, over the longer answer's number of words.

    Greedy answers of one model in two precisions are equal up to a near tie, and differ after it.
    """
    longest = max(len(one), len(other))
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return len(list(same)) / longest if longest else 1.0


def choose(told: Sequence[Sequence[Words]]) -> list[int]:
    """Return cases that together distinguish every two exits, the most informative first.

    Each step adds the case with the largest differences between exits whose answers differ least so far.

    Args:
        told: for each case, the words of each exit's answer.

    Raises:
        LayeralignError: no case distinguishes any two exits.
    """
    pairs = list(combinations(range(len(told[0]) if told else 0), 2))
    differ = np.array([[1 - agreement(each[a], each[b]) for a, b in pairs] for each in told])
    if not differ.any():
        raise LayeralignError("check: every exit of the run gives the same answers; scan more cases")
    known, chosen, left = np.zeros(len(pairs)), [], set(np.flatnonzero(differ.any(1)).tolist())
    while left:
        gain = differ @ np.exp(-known)
        at = max(left, key=lambda case: (gain[case], -case))
        chosen.append(at)
        left.remove(at)
        known += differ[at]
    return chosen


def greedy_answers(run: Results) -> dict[int, dict[str, str]]:
    """Map exit and case to the answer.

    Raises:
        LayeralignError: the run was sampled, is a log of `serve`, or has one exit only.
    """
    if "served" in run.identity:
        raise LayeralignError(f"run {run.path}: is a log of serve; --endpoint needs a scan")
    if run.identity.get("decoding", {}).get("temperature"):
        raise LayeralignError(f"run {run.path}: was sampled; --endpoint needs a scan with temperature 0")
    found: dict[int, dict[str, str]] = {}
    for (case, exit, _), answer in run.answers.items():
        found.setdefault(exit, {})[case] = answer
    if len(found) < 2:
        raise LayeralignError(f"run {run.path}: has one exit; --endpoint needs a scan of several")
    return found


def asked(run: Results, cases: Sequence[Case], chosen: Sequence[int]) -> list[tuple[int, Picture]]:
    """Return the first chosen cases whose pictures are still there, each with its picture.

    Raises:
        LayeralignError: no such picture is there.
    """
    pictures = {id: (path, sha256) for id, path, sha256 in run.pictures}
    invented, found = drawn(cases[at].id for at in chosen), []
    background = str(run.identity.get("background", WHITE))
    for at in chosen:
        path, sha256 = pictures.get(cases[at].id, ("", ""))
        picture = invented.get(cases[at].id)
        if picture is None or picture.sha256 != sha256:
            picture = FilePicture(path, sha256, background=background) if path else None
        with suppress(LayeralignError):  # gone or changed since the scan
            if picture is not None:
                picture.open()
                found.append((at, picture))
        if len(found) == QUESTIONS:
            break
    if not found:
        raise LayeralignError(f"run {run.path}: its cases have no pictures any more; --endpoint sends them")
    return found


def message(case: Case, picture: Picture) -> Message:
    """Return a case as the user's message, in OpenAI's form."""
    shown = {"type": "image_url", "image_url": {"url": data_url(picture.open(), "PNG")}}
    return {"role": "user", "content": [shown, {"type": "text", "text": case.prompt}]}
