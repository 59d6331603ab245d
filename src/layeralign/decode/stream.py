"""Answers to cases at exits, streamed picture by picture to limit memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch

from layeralign.cases.case import Case
from layeralign.decode.decoding import Answer, Decoding
from layeralign.decode.engine import Engine
from layeralign.decode.memory import too_little
from layeralign.decode.plain import Plain
from layeralign.decode.prompts import encode, prompt_tokens, spoken
from layeralign.decode.requests import Generation, Prompt, Request, Wanted, requests
from layeralign.decode.sampling import Sampler, seed_of
from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm

Query = tuple[Case, int, int]
"""A case, an exit and the number of a sample."""

_PICTURES = 32
"""Largest number of pictures per encoder pass."""
_ROWS = 128
"""Number of answers per window of queries; a window never splits a picture."""


def answers(
    vlm: Vlm, asked: Iterable[Query], decoding: Decoding, *, seed: int = 0, batch_size: int | None = None
) -> Iterator[list[Answer]]:
    """Answer queries; yields answers in groups, as they end.

    A picture is encoded once for all its exits if its queries are consecutive. A sampled answer depends only
    on seed, case, exit and sample number.

    Args:
        vlm: The model.
        asked: The queries, consumed as there is room.
        decoding: Decoding settings.
        seed: Seed of sampling.
        batch_size: Largest number of rows; by default as many as fit into memory.
    """
    engine = _engine(vlm, decoding, (), batch_size)
    for done in engine.run(_units(vlm, asked, decoding, seed)):
        yield [answer for said in done for answer in worded(vlm, said, decoding)]


def worded(vlm: Vlm, said: Generation[Query], decoding: Decoding) -> Iterator[Answer]:
    """The answers of a generation, one for each of its queries."""
    found = spoken(vlm, said.tokens, decoding.reasoning)
    why = said.finish_reason if found.answered or said.finish_reason == "non-finite" else "reasoning"
    for case, exit, sample in said.keys:
        yield Answer(case, exit, found.answer, len(said.tokens), why, sample, found.reasoning)


def answer(vlm: Vlm, pairs: Sequence[tuple[Case, int]], decoding: Decoding, seed: int = 0) -> list[Answer]:
    """Answer every (case, exit) pair; returns the answers in order."""
    asked = {(case.id, exit): (case, exit, 0) for case, exit in pairs}
    made = answers(vlm, asked.values(), decoding, seed=seed)
    found = {(one.case.id, one.exit): one for done in made for one in done}
    return [found[case.id, exit] for case, exit in pairs]


def respond(
    vlm: Vlm,
    ids: Sequence[Sequence[int]],
    features: Sequence[Feature | None],
    decoding: Decoding,
    *,
    seeds: Sequence[int] | None = None,
    suppressed: Sequence[int] = (),
    batch_size: int | None = None,
) -> list[Generation[int]]:
    """Answer tokenised prompts.

    Args:
        vlm: the model.
        ids: token ids of each prompt, from `prompt_tokens`.
        features: of each prompt's picture, None without picture; prompts with one picture and exit share it.
        decoding: how to decode; settings of the prompt are already in the ids.
        seeds: of each prompt's sampling; None for greedy decoding.
        suppressed: token ids that no answer may hold.
        batch_size: maximum number of rows in a batch; by default as many as fit into memory.

    Returns:
        One generation per prompt.
    """
    alike: dict[int, dict[tuple[int, ...], list[int]]] = {}
    for row, (line, feature) in enumerate(zip(ids, features, strict=True)):
        alike.setdefault(id(feature), {}).setdefault(tuple(line), []).append(row)
    found: list[Request[int]] = []
    for lines in alike.values():
        prompts = []
        for line, rows in lines.items():
            each = [Wanted((row,), seeds[row]) for row in rows] if seeds else [Wanted(tuple(rows))]
            prompts.append(Prompt(line, features[rows[0]], tuple(each)))
        found += requests(prompts, _least(vlm, prompts, decoding))
    engine = _engine(vlm, decoding, suppressed, batch_size)
    done = engine.run(sorted(found, key=_alike))
    made = {row: said for some in done for said in some for row in said.keys}
    return [made[row] for row in range(len(ids))]


def _engine(
    vlm: Vlm, decoding: Decoding, suppressed: Sequence[int], batch_size: int | None
) -> Engine[Any] | Plain[Any]:
    kind = Engine if vlm.streams else Plain
    return kind(vlm, Sampler(decoding, vlm.device, suppressed), decoding.max_new_tokens, batch_size)


def _alike(unit: Request[Any]) -> tuple[int, int]:
    """Sort key that puts requests that can be read together next to each other."""
    return unit.shared, unit.longest


def _units(vlm: Vlm, asked: Iterable[Query], decoding: Decoding, seed: int) -> Iterator[Request[Query]]:
    """Convert queries to requests, window by window; queries with equal answers are merged."""
    for window in windows(asked):
        at: dict[Seen, dict[str, list[Query]]] = {}
        for one in window:
            at.setdefault(seen_by(one), {}).setdefault(one[0].id, []).append(one)
        features = encoded(vlm, {seen: next(iter(of.values()))[0] for seen, of in at.items()})
        ids: dict[str, list[int]] = {}
        found: list[Request[Query]] = []
        for seen, of_case in at.items():
            prompts = []
            for name, keys in of_case.items():
                if name not in ids:
                    ids[name] = prompt_tokens(vlm, keys[0][0], features[seen], decoding)
                wanted = [Wanted((key,), seed_of(seed, key[0].id, *key[1:])) for key in keys]
                wanted = wanted if decoding.temperature else [Wanted(tuple(keys))]
                prompts.append(Prompt(ids[name], features[seen], tuple(wanted)))
            found += requests(prompts, _least(vlm, prompts, decoding))
        yield from sorted(found, key=_alike)


Seen = tuple[str, int] | None
"""A picture at an exit; None without a picture, when the exit makes no difference."""


def seen_by(asked: Query) -> Seen:
    """The picture and the exit that an answer depends on."""
    case, exit, _ = asked
    return (case.picture.sha256, exit) if case.picture else None


def windows(asked: Iterable[Query]) -> Iterator[list[Query]]:
    """Split queries into windows without splitting a picture."""
    window: list[Query] = []
    pictures = 0
    for _, group in groupby(asked, key=lambda one: one[0].picture.sha256 if one[0].picture else one[0].id):
        window += group
        pictures += 1
        if pictures == _PICTURES or len(window) >= _ROWS:
            yield window
            window, pictures = [], 0
    if window:
        yield window


def encoded(vlm: Vlm, asked: Mapping[Seen, Query]) -> dict[Seen, Feature | None]:
    """The features of each picture at its exit, copied so that the batch's memory is freed."""
    try:
        made = encode(vlm, [(case, exit) for case, exit, _ in asked.values()])
        return {seen: one and one.clone() for seen, one in zip(asked, made, strict=True)}
    except torch.OutOfMemoryError:
        pass  # the failed pass's memory is freed only after this block
    names = list(asked)
    half = len(names) // 2
    if not half:
        raise too_little(vlm)
    return {
        seen: feature
        for part in (names[:half], names[half:])
        for seen, feature in encoded(vlm, {name: asked[name] for name in part}).items()
    }


def _least(vlm: Vlm, prompts: Sequence[Prompt[Any]], decoding: Decoding) -> int | None:
    """Smallest number of shared tokens: up to the end of the picture; None if prompts must not share."""
    longest = max(len(prompt.ids) for prompt in prompts)
    apart = vlm.regime(longest, decoding.max_new_tokens, prompts[0].feature) != "short"
    if len(prompts) == 1 or vlm.reads_ahead or apart:
        return None
    picture = vlm.picture_token_id
    return max((at for at, token in enumerate(prompts[0].ids, 1) if token == picture), default=0)
