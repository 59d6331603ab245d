"""Does a vLLM server compute the model of this process? Asked before any of its answers counts.

A few cases are asked in three ways: with the picture itself, with our features of the default exit, and,
where this machine can, of the language model in this process. Two are asked at the first exit, too, since a
server that ignores features is right at the default one. A difference counts unless it begins at a token that
is nearly as probable as another, since rounding may decide there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from layeralign._util.text import printable
from layeralign.cases.case import Case
from layeralign.decode.decoding import Decoding
from layeralign.decode.prompts import encode, ended, prompt_tokens
from layeralign.errors import LayeralignError
from layeralign.judges.models.service import Failure
from layeralign.sweep.sweep import Changed
from layeralign.sweep.vllm.server import FAMILIES, Asked, Part, Said, Server, features_part, picture_part
from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm

CASES = 8
"""Largest number of cases that are asked."""
ELSEWHERE = 2
"""Largest number of them that are asked at the first exit, too."""
TOKENS = 16
"""Largest length of their answers, in tokens."""
NEAR = {torch.float32: 0.01, torch.float16: 0.1, torch.bfloat16: 0.3}
"""dtype -> gap between two tokens, in nats, up to which rounding may choose between them."""
OWN_CHECK_BYTES = 4 * 2**30
"""Largest language model that is read from the disk for the comparison without a GPU, in bytes."""


@dataclass(frozen=True)
class Shaken:
    """What a server answered to picture features when it was seen to compute this model.

    Attributes:
        bodies: The requests.
        said: The answers.
        near: Gap up to which rounding may choose; see `NEAR`.
    """

    bodies: Sequence[Part]
    said: Sequence[Said]
    near: float

    def again(self, server: Server) -> None:
        """Ask once more, at the end.

        Raises:
            Changed: An answer differs.
            LayeralignError: A request failed.
        """
        pairs = list(zip(self.said, server.ask(self.bodies), strict=True))
        there = [(then, now) for then, now in pairs if not isinstance(now, Failure)]
        where = f"endpoint {server.service.url}:"
        if other := sum(_differ(then, now, self.near) for then, now in there):
            raise Changed(
                f"{where} {other} of {len(pairs)} answers are no longer those of the start; the server was "
                "changed while it answered, so use a new folder"
            )
        if lost := len(pairs) - len(there):
            raise LayeralignError(
                f"{where} {lost} of {len(pairs)} requests failed at the end, so it is not known whether the "
                "server was changed while it answered; use a new folder if it was"
            )


def shake(server: Server, vlm: Vlm, cases: Sequence[Case], decoding: Decoding) -> Shaken:
    """See that a server answers as this process would; print what could not be seen to stderr.

    Args:
        server: The server.
        vlm: The model; its language model may be on disk.
        cases: The scan's cases.
        decoding: The scan's decoding settings.

    Returns:
        What it answered, to be compared after the scan.

    Raises:
        LayeralignError: vLLM takes no features of this family, the server refuses them, or an answer differs;
            the message says where to look.
    """
    if vlm.family not in FAMILIES:
        raise LayeralignError(
            f"model {vlm.name}: family {vlm.family} was not seen to answer from picture features in vLLM; "
            f"remove --engine (families: {', '.join(FAMILIES)})"
        )
    if decoding.special_tokens != "parse":
        _check_texts(vlm, cases)
    chosen = _chosen(cases)
    short = _short(decoding)
    pairs = [(case, vlm.exits.default) for case in chosen]
    pairs += [(case, vlm.exits.all[0]) for case in chosen[:ELSEWHERE] if case.picture]
    features = encode(vlm, pairs)
    asked = [
        Asked(((case, exit, 0),), prompt_tokens(vlm, case, feature, short))
        for (case, exit), feature in zip(pairs, features, strict=True)
    ]
    more = {"logprobs": True, "top_logprobs": 2}
    ours = [
        server.body(vlm, case, features_part(vlm, feature) if feature else None, short, **more)
        for (case, _), feature in zip(pairs, features, strict=True)
    ]
    theirs = [server.body(vlm, case, picture_part(case), short, **more) for case in chosen]
    pictures = _answers(server, vlm, asked[: len(chosen)], server.ask(theirs), short, "the picture itself")
    given = _answers(server, vlm, asked, server.ask(ours), short, "picture features")
    near = _near(vlm)
    _compare_pictures(server, vlm, pictures, given[: len(chosen)], near)
    _compare_own(server, vlm, asked, features, given, near)
    return Shaken(ours, given, near)


def compare_one(server: Server, vlm: Vlm, row: tuple[Case, int], decoding: Decoding) -> None:
    """See by one greedy answer, to a case at an exit, that a server computes this model.

    Raises:
        LayeralignError: It does not.
    """
    short, (feature,) = _short(decoding), encode(vlm, [row])
    asked = Asked(((*row, 0),), prompt_tokens(vlm, row[0], feature, short))
    part = features_part(vlm, feature) if feature else None
    said = server.ask([server.body(vlm, row[0], part, short)])
    given = _answers(server, vlm, [asked], said, short, "picture features")
    _compare_own(server, vlm, [asked], [feature], given, _near(vlm))


def _short(decoding: Decoding) -> Decoding:
    return replace(decoding, max_new_tokens=min(TOKENS, decoding.max_new_tokens), temperature=0.0, top_p=1.0)


def _near(vlm: Vlm) -> float:
    return NEAR.get(vlm.model.dtype, max(NEAR.values()))


def _check_texts(vlm: Vlm, cases: Sequence[Case]) -> None:
    """Refuse cases that a server reads otherwise, before others are asked."""
    spelt = [case.id for case in cases if vlm.literal(case.prompt) != case.prompt]
    if spelt:
        raise LayeralignError(
            f"case {spelt[0]!r}: its text spells a special token, which vLLM reads as one ({len(spelt)} of "
            f"{len(cases)} cases do); remove them, or use --special-tokens parse"
        )


def _chosen(cases: Sequence[Case]) -> list[Case]:
    """The first cases with pictures of their own, or without pictures if no case has one."""
    seen = {case.picture.sha256: case for case in reversed(cases) if case.picture}
    return list(reversed(seen.values()))[:CASES] or list(cases[:CASES])


def _answers(
    server: Server,
    vlm: Vlm,
    asked: Sequence[Asked],
    said: Sequence[Said | Failure],
    decoding: Decoding,
    what: str,
) -> list[Said]:
    """The server's answers, with the prompts that we would give."""
    found = []
    for one, answer in zip(asked, said, strict=True):
        if isinstance(answer, Failure):
            hint = "; start it with --enable-mm-embeds" if what == "picture features" else ""
            raise LayeralignError(
                f"endpoint {server.service.url}: cannot be asked with {what} ({answer.why}){hint}"
            )
        if why := server.wrong(vlm, one, answer, decoding):
            raise LayeralignError(f"endpoint {server.service.url}: {why}")
        found.append(answer)
    return found


def _compare_pictures(
    server: Server, vlm: Vlm, pictures: Sequence[Said], given: Sequence[Said], near: float
) -> None:
    """Most answers to pictures must be those to our features of the default exit.

    A few may differ: the server prepares pictures by its own code.
    """
    other = sum(_differ(one, two, near) for one, two in zip(pictures, given, strict=True))
    if 2 * other > len(given):
        raise LayeralignError(
            f"endpoint {server.service.url}: {other} of {len(given)} answers to a picture are not those to "
            f"this model's features of exit {vlm.exits.name(vlm.exits.default)}; the server has another "
            "encoder layer, other weights of encoder or projector, or another number format"
        )
    if other:
        print(
            printable(
                f"note: {other} of {len(given)} answers of {server.service.url} to a picture are not those "
                "to our features, since it prepares pictures by its own code"
            ),
            file=sys.stderr,
        )


def _differ(one: Said, other: Said, near: float) -> bool:
    """Whether two answers differ from a token on at which neither had a near second choice."""
    pairs = list(zip(one.tokens, other.tokens, strict=False))
    at = next((n for n, (mine, theirs) in enumerate(pairs) if mine != theirs), len(pairs))
    if at == len(one.tokens) == len(other.tokens):
        return False
    return all(at >= len(said.gaps) or said.gaps[at] > near for said in (one, other))


@torch.inference_mode()
def _compare_own(
    server: Server,
    vlm: Vlm,
    asked: Sequence[Asked],
    features: Sequence[Feature | None],
    given: Sequence[Said],
    near: float,
) -> None:
    """Each token that the server chose must be one of the most probable to the language model here."""
    weights = sum(part.nbytes for part in vlm.model.get_decoder().parameters())
    if vlm.device.type == "cpu" and weights > OWN_CHECK_BYTES:
        print(
            "note: the server's language model was not compared with this model's, which takes too long "
            "without a GPU",
            file=sys.stderr,
        )
        return
    other = 0
    for one, feature, said in zip(asked, features, given, strict=True):
        answer, _ = ended(vlm, said.tokens)
        ids = torch.tensor([[*one.ids, *answer]], device=vlm.device)
        inside = torch.arange(ids.shape[1], device=vlm.device)[None] < len(one.ids)
        states = vlm.hidden(ids, inside, [feature])[:, len(one.ids) - 1 : -1]
        found = vlm.logits(states)[0].float()
        chosen = found.gather(1, ids[0, len(one.ids) :, None])[:, 0]
        other += not bool((found.max(1).values - chosen <= near).all())  # NaN is a difference
    if other:
        raise LayeralignError(
            f"endpoint {server.service.url}: {other} of {len(given)} answers are not those of model "
            f"{vlm.name}; the server has another language model, adapter or number format (an adapter is a "
            "LoRA module of the server: name it as MODULE@URL)"
        )
