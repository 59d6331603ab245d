"""Which exit a running endpoint answers from: its answers are compared with a run's answers at every exit.

The run has the scanned model's greedy answer to each case at each exit. An endpoint that serves the same
model at one of these exits gives nearly the same answers as that exit. No file of the deployment is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations, takewhile

import numpy as np
from numpy.typing import NDArray

from layeralign._util.text import printable
from layeralign.analysis.results import Results
from layeralign.cases.background import WHITE
from layeralign.cases.case import Case
from layeralign.cases.pictures import FilePicture, data_url
from layeralign.errors import LayeralignError
from layeralign.gating.deployed import Deployed, held, limit_of
from layeralign.gating.policy import Policy
from layeralign.judges.models.remote import Completion, Endpoint
from layeralign.testbed.drawn import drawn

QUESTIONS = 40
"""Maximum number of cases that are asked."""
FEWEST = 10
"""Fewest answers from which an exit is named."""
CANDIDATES = 500
"""Cases from which the questions are chosen: the first ones of the run."""
ALPHA = 0.01
"""Probability that the true exit is excluded, over all exits."""
NOISE = 0.2
"""Assumed share of questions at which another exit agrees more than the served one, where the two differ.

Precision and batches change a few greedy answers. `benchmarks/runtimes/endpoint.py` measures the share.
"""
SAME = 0.5
"""Mean agreement with the best exit below which the endpoint serves another model."""
Words = list[str]
Agreement = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """How well one exit explains the endpoint's answers.

    Attributes:
        exit: the exit's number.
        name: the exit's name.
        agreement: mean agreement of the endpoint's answers with this exit's, 0 to 1; see `agreement`.
        p: if this exit were served, the probability that another exit agrees more at so many of the questions
            at which the two differ: the smallest binomial tail with `NOISE`, Bonferroni-corrected over the
            other exits. It is also small for the best exit if the server answers from several exits.
        fits: whether `p` is at least `ALPHA`.
    """

    exit: int
    name: str
    agreement: float
    p: float
    fits: bool


@dataclass(frozen=True)
class Reply:
    """An endpoint's answer to a case, and the words of each exit's answer in the run."""

    case: Case
    text: str
    told: Sequence[Words]


@dataclass(frozen=True)
class Located:
    """The exits from which an endpoint may answer.

    Attributes:
        fits: every exit of the run, the best first.
        asked: the number of questions.
        answered: the number of questions with an answer.
    """

    fits: tuple[Fit, ...]
    asked: int
    answered: int

    @property
    def exits(self) -> tuple[Fit, ...]:
        """The exits that explain the answers; empty where the endpoint serves another model."""
        return tuple(fit for fit in self.fits if fit.fits) if self.fits[0].agreement >= SAME else ()


def check(
    given: str, run: Results, *, policy: Policy | None = None, limit: float | None = None
) -> tuple[Deployed, Located]:
    """Name the exits from which an endpoint may answer, and check whether a run has shown them to be safe.

    It passes if every one of these exits does, and fails if every one does.

    Args:
        given: `MODEL@URL`, as for judges: the model's name on the server, and the server's base URL.
        run: the run of the scan.
        policy: see `layeralign.gating.deployed.check`.
        limit: the same.

    Raises:
        LayeralignError: see `locate`; or `given` has another form, or policy and limit are both given.
    """
    model, at, url = given.partition("@http")
    if not model or not at:
        raise LayeralignError(f"endpoint {printable(given, 80)}: expected MODEL@URL")
    limit = limit_of(policy, limit)
    found = locate(Endpoint.of(f"http{url}", model), run)
    best = found.fits[0]
    key = f"{round(100 * best.agreement)} % agreement in {found.answered} answers"
    told = Deployed(given, None, "", "inconclusive", "", None, weights=True, runtime="endpoint", key=key)
    if not found.exits:
        why = (
            "its answers are those of no scanned exit, so it serves another model, template or exit, or "
            "several exits"
        )
        return replace(told, why=why), found
    each = [held(replace(told, exit=fit.exit, name=fit.name), run, policy, limit) for fit in found.exits]
    name = " or ".join(one.name for one in each)
    if len({one.result for one in each}) > 1:
        why = "these exits differ: " + ", ".join(f"{one.result} at exit {one.name}" for one in each)
        return replace(told, exit=best.exit, name=name, why=why), found
    return replace(each[0], name=name), found


def locate(endpoint: Endpoint, run: Results) -> Located:
    """Ask an endpoint the run's most informative questions, and compare its answers with every exit's.

    Args:
        endpoint: a server with OpenAI's chat completions API, which takes pictures as data URLs.
        run: a run with greedy answers at two or more exits.

    Raises:
        LayeralignError: the run was sampled or has one exit, its pictures are gone, its exits answer alike,
            or the endpoint cannot be asked or gave too few answers.
    """
    exits, asked, replies = ask(endpoint, run)
    if len(replies) < FEWEST:
        raise LayeralignError(
            f"endpoint {endpoint.service.url}: answered {len(replies)} of {asked} questions; expected at "
            f"least {FEWEST}"
        )
    each = [(reply.text.split(), reply.told) for reply in replies]
    return Located(fits(run, exits, each), asked, len(replies))


def ask(endpoint: Endpoint, run: Results) -> tuple[list[int], int, list[Reply]]:
    """Ask the run's most informative questions; return the run's exits, the number asked, and the replies.

    Raises:
        LayeralignError: see `locate`.
    """
    answers = greedy_answers(run)
    exits = sorted(answers)
    cases = [case for case in run.cases if not case.control and all(case.id in by for by in answers.values())]
    told = [[answers[exit][case.id].split() for exit in exits] for case in cases[:CANDIDATES]]
    asked = _asked(run, cases, choose(told))
    conversations = [[_message(cases[at], url)] for at, url in asked]
    longest = int(run.identity["decoding"]["max_new_tokens"])
    replies = endpoint.ask_all(conversations, max_tokens=longest)
    there = [
        Reply(cases[at], reply.text, told[at])
        for (at, _), reply in zip(asked, replies, strict=True)
        if isinstance(reply, Completion)
    ]
    return exits, len(asked), there


def fits(
    run: Results, exits: Sequence[int], replies: Sequence[tuple[Words, Sequence[Words]]]
) -> tuple[Fit, ...]:
    """Return how well each exit explains the replies, the best exit first.

    Args:
        run: the run, for the exits' names.
        exits: the exits.
        replies: for each question the endpoint's words, and the words of each exit.
    """
    scores = np.array([[agreement(reply, own) for own in each] for reply, each in replies])
    means = scores.mean(0)
    from scipy.special import bdtrc  # P(more than k of n); its import takes a while

    found = []
    for at in np.argsort(-means, kind="stable").tolist():
        leads = scores - scores[:, [at]]  # of each exit over this one
        tails = bdtrc((leads > 0).sum(0) - 1, (leads != 0).sum(0), NOISE)
        p = min(1.0, float(tails.min()) * (len(exits) - 1))
        found.append(Fit(exits[at], run.exits.name(exits[at]), float(means[at]), p, p >= ALPHA))
    return tuple(found)


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
        LayeralignError: the run was sampled, or has one exit only.
    """
    if run.identity.get("decoding", {}).get("temperature"):
        raise LayeralignError(f"run {run.path}: was sampled; --endpoint needs a scan with temperature 0")
    found: dict[int, dict[str, str]] = {}
    for (case, exit, _), answer in run.answers.items():
        found.setdefault(exit, {})[case] = answer
    if len(found) < 2:
        raise LayeralignError(f"run {run.path}: has one exit; --endpoint needs a scan of several")
    return found


def _asked(run: Results, cases: Sequence[Case], chosen: Sequence[int]) -> list[tuple[int, str]]:
    """Return the first chosen cases whose pictures are still there, each with its picture as a data URL.

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
                found.append((at, data_url(picture.open(), "PNG")))
        if len(found) == QUESTIONS:
            break
    if not found:
        raise LayeralignError(f"run {run.path}: its cases have no pictures any more; --endpoint sends them")
    return found


def _message(case: Case, url: str) -> dict[str, object]:
    picture = {"type": "image_url", "image_url": {"url": url}}
    return {"role": "user", "content": [picture, {"type": "text", "text": case.prompt}]}
