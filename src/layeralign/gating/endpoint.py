"""Which exit a running endpoint answers from: its answers are compared with a run's answers at every exit.

The run has the scanned model's greedy answer to each case at each exit. An endpoint that serves the same
model at one of these exits gives nearly the same answers as that exit. No file of the deployment is needed.
With the scanned model at hand, the log-probabilities of the answers' tokens are compared, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from layeralign.analysis.results import Results
from layeralign.cases.case import Case
from layeralign.errors import LayeralignError
from layeralign.gating import questions
from layeralign.gating.deployed import Deployed, held, limit_of
from layeralign.gating.policy import Policy
from layeralign.gating.questions import Words, agreement
from layeralign.judges.models.remote import Completion, Endpoint, Message

if TYPE_CHECKING:
    from layeralign.gating.log_probs import Scanned

FEWEST = 10
"""Fewest answers from which an exit is named."""
CANDIDATES = 500
"""Cases from which the questions are chosen: the first ones of the run."""
ALPHA = 0.01
"""Probability that the true exit is excluded, over all exits."""
NOISE = 0.1
"""Assumed share of questions at which other exits agree more than the served one, where they differ.

Precision and batches change a few greedy answers; `benchmarks/runtimes/endpoint.py` measures the share. A
larger share hides a second exit behind a load balancer; a smaller one excludes the served exit.
"""
FAR = 0.2
"""Assumed share of questions with a distance above `Fit.limit`, where log-probabilities are compared."""
SAME = 0.5
"""Mean agreement with the best exit below which the endpoint serves another model."""
FACTOR = 2
"""Distance of a server's log-probabilities from an exit that a number format explains, as a multiple.

It is a multiple of the distance between the scanned model in two formats. `benchmarks/runtimes/endpoint.py`
measures the distances of other formats, exits and models.
"""
Agreement = NDArray[np.float64]
Far = NDArray[np.float64] | None


@dataclass(frozen=True)
class Fit:
    """How well one exit explains the endpoint's answers.

    Attributes:
        exit: the exit's number.
        name: the exit's name.
        agreement: mean agreement of the endpoint's answers with this exit's, 0 to 1; see `agreement`.
        p: if this exit were served, the probability that another exit agrees more at so many of the questions
            at which the two differ: the smallest binomial tail with `NOISE`. Two other exits are also taken
            together, each question with the one that agrees more, as behind a load balancer. The p-value is
            Bonferroni-corrected over the other exits and their pairs. Where log-probabilities were compared:
            the largest probability that so many questions have a distance above `limit`, a binomial tail
            with `FAR`; or that of the other answers' words, if smaller.
        fits: whether `p` is at least `ALPHA`.
        distance: median distance of the endpoint's log-probabilities from this exit's, in nats; see
            `layeralign.gating.log_probs`. None where they were not compared.
        limit: largest distance that another number format explains: `FACTOR` times the median distance
            between two formats at this exit.
    """

    exit: int
    name: str
    agreement: float
    p: float
    fits: bool
    distance: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Reply:
    """An endpoint's answer to a case, and the words of each exit's answer in the run.

    Attributes:
        case: the case, with its picture.
        text: the answer.
        told: the words of each exit's answer.
        log_probs: see `Completion`.
    """

    case: Case
    text: str
    told: Sequence[Words]
    log_probs: Sequence[Sequence[float]] = ()


@dataclass(frozen=True)
class Located:
    """The exits from which an endpoint may answer.

    Attributes:
        fits: every exit of the run, the best first.
        asked: the number of questions.
        answered: the number of questions with an answer.
        compared: the number of answers whose log-probabilities were compared. From `FEWEST` on they decide,
            and the words decide on the other answers alone.
    """

    fits: tuple[Fit, ...]
    asked: int
    answered: int
    compared: int = 0

    @property
    def exits(self) -> tuple[Fit, ...]:
        """The exits that explain the answers; empty where the endpoint serves another model."""
        return tuple(fit for fit in self.fits if fit.fits) if self.fits[0].agreement >= SAME else ()


def check(
    given: str,
    run: Results,
    *,
    policy: Policy | None = None,
    limit: float | None = None,
    model: str | Path | None = None,
    revision: str | None = None,
    adapter: str | Path | None = None,
) -> tuple[Deployed, Located]:
    """Name the exits from which an endpoint may answer, and check whether a run has shown them to be safe.

    It passes if every one of these exits does, and fails if every one does.

    Args:
        given: `MODEL@URL`, as for judges: the model's name on the server, and the server's base URL.
        run: the run of the scan.
        policy: see `layeralign.gating.deployed.check`.
        limit: the same.
        model: the scanned model, whose log-probabilities are compared, too: its folder, hub id or name.
        revision: the revision of a hub id.
        adapter: the folder of the model's adapter.

    Raises:
        LayeralignError: see `locate`; or `given` has another form, policy and limit are both given, or
            `model` is not the scanned one.
    """
    name, at, url = given.partition("@http")
    if not name or not at:
        raise LayeralignError(  # an address may hold a key, so it is not shown
            "endpoint: expected MODEL@URL, such as m@http://localhost:8000/v1"
        )
    limit = limit_of(policy, limit)
    if model is None and (revision is not None or adapter is not None):
        raise LayeralignError("check: revision and adapter are those of a model; name it next to --endpoint")
    scanned = None
    if model is not None:
        from layeralign.gating.log_probs import Scanned  # torch takes seconds to import

        scanned = Scanned.load(model, run, revision=revision, adapter=adapter)
    found = locate(Endpoint.of(f"http{url}", name), run, scanned)
    best = found.fits[0]
    key = f"{round(100 * best.agreement)} % agreement in {found.answered} answers"
    if best.distance is not None:
        key += f", log-probabilities of {found.compared} differ by {best.distance:.3f}"
    elif model is not None:
        key += f", log-probabilities of {found.compared}, too few to compare"
    told = Deployed(given, None, "", "inconclusive", "", None, weights=True, runtime="endpoint", key=key)
    if not found.exits:
        what, more = ("answers", "") if best.distance is None else ("log-probabilities", ", number format")
        why = (
            f"its {what} are those of no scanned exit, so it serves another model{more}, template or exit, "
            "or several exits"
        )
        return replace(told, why=why), found
    each = [held(replace(told, exit=fit.exit, name=fit.name), run, policy, limit) for fit in found.exits]
    names = " or ".join(one.name for one in each)
    if len({one.result for one in each}) > 1:
        why = "these exits differ: " + ", ".join(f"{one.result} at exit {one.name}" for one in each)
        return replace(told, exit=best.exit, name=names, why=why), found
    return replace(each[0], name=names), found


def locate(endpoint: Endpoint, run: Results, scanned: Scanned | None = None) -> Located:
    """Ask an endpoint the run's most informative questions, and compare its answers with every exit's.

    Args:
        endpoint: a server with OpenAI's chat completions API, which takes pictures as data URLs.
        run: a run with greedy answers at two or more exits.
        scanned: the scanned model. Where the endpoint gives log-probabilities, they are compared with those
            of this model at every exit.

    Raises:
        LayeralignError: the run was sampled or has one exit, its pictures are gone, its exits answer alike,
            the endpoint cannot be asked or gave too few answers.
    """
    exits, asked, replies = ask(endpoint, run, questions.FIELDS if scanned else {})
    if len(replies) < FEWEST:
        raise LayeralignError(
            f"endpoint {endpoint.service.url}: answered {len(replies)} of {asked} questions; expected at "
            f"least {FEWEST}"
        )
    each = [(reply.text.split(), reply.told) for reply in replies]
    far: list[Far] = [None] * len(replies)
    if scanned is not None:
        far = [scanned.distances(run, exits, one.case, one.text, one.log_probs) for one in replies]
    compared = sum(one is not None for one in far)
    return Located(fits(run, exits, each, far), asked, len(replies), compared)


def ask(
    endpoint: Endpoint, run: Results, more: Mapping[str, object] | None = None
) -> tuple[list[int], int, list[Reply]]:
    """Ask the run's most informative questions; return the run's exits, the number asked, and the replies.

    Args:
        endpoint: the server.
        run: the run.
        more: further fields of each request. If no such request is answered, they are left out.

    Raises:
        LayeralignError: see `locate`.
    """
    answers = questions.greedy_answers(run)
    exits = sorted(answers)
    cases = [case for case in run.cases if not case.control and all(case.id in by for by in answers.values())]
    told = [[answers[exit][case.id].split() for exit in exits] for case in cases[:CANDIDATES]]
    asked = questions.asked(run, cases, questions.choose(told))
    system = run.identity["decoding"].get("system")
    before: list[Message] = [{"role": "system", "content": system}] if system else []
    talks = [[*before, questions.message(cases[at], picture)] for at, picture in asked]
    longest = int(run.identity["decoding"]["max_new_tokens"])
    replies = endpoint.ask_all(talks, max_tokens=longest, **(more or {}))
    if more and not any(isinstance(reply, Completion) for reply in replies):
        replies = endpoint.ask_all(talks, max_tokens=longest)
    there = [
        Reply(replace(cases[at], picture=picture), reply.text, told[at], reply.log_probs)
        for (at, picture), reply in zip(asked, replies, strict=True)
        if isinstance(reply, Completion)
    ]
    return exits, len(asked), there


def fits(
    run: Results,
    exits: Sequence[int],
    replies: Sequence[tuple[Words, Sequence[Words]]],
    far: Sequence[Far] = (),
) -> tuple[Fit, ...]:
    """Return how well each exit explains the replies, the best exit first.

    Args:
        run: the run, for the exits' names.
        exits: the exits.
        replies: for each question the endpoint's words, and the words of each exit.
        far: for each question the distances of the server and of another number format at each exit,
            [2, exits], in nats; None where log-probabilities were not compared. By default none were.
    """
    scores = np.array([[agreement(reply, own) for own in each] for reply, each in replies])
    means = scores.mean(0)
    names = [run.exits.name(exit) for exit in exits]
    compared = np.array([one for one in far if one is not None])
    if len(compared) >= FEWEST:
        from scipy.special import bdtrc  # its import takes a while

        away, other = compared.swapaxes(0, 1)
        limits = FACTOR * np.median(other, 0)
        ps = bdtrc((away > limits).sum(0) - 1, len(compared), FAR)
        ps = np.minimum(ps, _by_words(scores[[one is None for one in far]]))
        columns = (means, ps, ps >= ALPHA, np.median(away, 0), limits)
        rows = zip(exits, names, *(column.tolist() for column in columns), strict=True)
        return tuple(sorted((Fit(*row) for row in rows), key=lambda fit: (-fit.p, fit.distance)))
    ps = _by_words(scores)
    best = np.argsort(-means, kind="stable").tolist()
    return tuple(
        Fit(exits[at], names[at], float(means[at]), float(ps[at]), bool(ps[at] >= ALPHA)) for at in best
    )


def _by_words(scores: Agreement) -> Agreement:
    """Return the `p` of each exit by the agreement of words, [questions, exits]; see `Fit`."""
    from scipy.special import bdtrc  # P(more than k of n)

    found = []
    for at in range(scores.shape[1]):
        others = (other for other in range(scores.shape[1]) if other != at)
        ones, twos = np.array(list(combinations_with_replacement(others, 2))).T
        leads = np.maximum(scores[:, ones], scores[:, twos]) - scores[:, [at]]  # over this exit
        tails = bdtrc((leads > 0).sum(0) - 1, (leads != 0).sum(0), NOISE)
        found.append(min(1.0, float(tails.min()) * len(tails)))
    return np.array(found)
