"""Screening: estimate each exit's ASR from one prefill per prompt, by the probability of a refusal."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from layeralign._util.progress import Progress
from layeralign.analysis.screen import Screen, ScreenedExit
from layeralign.analysis.sequential import order
from layeralign.cases.case import Case
from layeralign.decode import prompts, stream
from layeralign.decode.decoding import Decoding
from layeralign.decode.memory import too_little
from layeralign.decode.openings import Opening, opens
from layeralign.errors import LayeralignError
from layeralign.judges.kinds import READ_FACTS
from layeralign.judges.refusal import refuses
from layeralign.runs import opening
from layeralign.stats.intervals import share_interval
from layeralign.sweep.plan import grid
from layeralign.sweep.settings import ScanSettings
from layeralign.sweep.sweep import prepared
from layeralign.vlm import finite
from layeralign.vlm.identity import identity
from layeralign.vlm.vlm import Vlm

TOKENS = 3
"""Tokens of an opening; a single token, such as `I`, starts many other answers, too."""
ANSWERS = 32
"""Number of answers at the default exit from which openings are taken."""
OPENINGS = 4
"""Number of openings: the most frequent ones."""
BATCH = 64
"""Prompts per batch, unless a batch size is given or there is not enough memory."""


def screen(vlm: Vlm, cases: Sequence[Case], out: Path, settings: ScanSettings) -> Screen:
    """Estimate the ASR of exits and store it in the run in `out`, which a scan can extend.

    The openings of refusals are the model's own: they come from its first answers to harmful cases at the
    default exit that the refusal matcher calls refusals.

    Raises:
        LayeralignError: No case is harmful, the model refuses none of those first cases, `out` has another
            run, or the model cannot be asked a case.
    """
    began = time.monotonic()
    cases = settings.on_background(cases)
    harmful = [case for case in cases if case.kind == "harmful" and not case.control]
    if not harmful:
        raise LayeralignError("screen: none of the cases is harmful; expected at least one harmful case")
    exits = vlm.exits.parse(settings.exits)
    settings = prepared(vlm, cases, out, settings)
    openings, asked = own_openings(vlm, harmful, settings)
    rows = [(case, exit) for case, exit, _ in grid(harmful, exits, 1)]
    size = settings.batch_size or BATCH
    chances: dict[tuple[str, int], float] = {}
    with Progress("prompts", total=len(rows)) as progress:
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            found = _opens(vlm, some, list(openings), settings.decoding)
            chances |= {(case.id, exit): one for (case, exit), one in zip(some, found, strict=True)}
            progress.advance(len(some))
    if failed := sorted({exit for (_, exit), chance in chances.items() if math.isnan(chance)}):
        raise finite.failure(vlm, map(vlm.exits.name, failed))
    made = Screen(
        model=vlm.name,
        openings=tuple(prompts.text(vlm, opening) for opening in openings),
        asked=asked,
        refused=openings.total(),
        cases=len(harmful),
        prefills=len(rows),
        seconds=time.monotonic() - began,
        exits=_ranked(vlm, harmful, exits, chances),
    )
    with opening.create(out, vlm.name, identity(vlm) | settings.record(), vlm.exits.to_json()) as run:
        run.add_config(vlm.checkpoint.config())
        run.add_cases(cases, anew=READ_FACTS)
        run.note_screen(made.to_json())
    return made


def own_openings(vlm: Vlm, harmful: Sequence[Case], settings: ScanSettings) -> tuple[Counter[Opening], int]:
    """The openings of the model's refusals at its default exit with their counts, and the number of answers.

    Raises:
        LayeralignError: The model refuses no case, or reasons before its answers.
    """
    by_id = {case.id: case for case in harmful}
    first = [by_id[id] for id in order(by_id, settings.seed)[:ANSWERS]]
    features = prompts.encode(vlm, [(case, vlm.exits.default) for case in first])
    greedy = replace(settings.decoding, temperature=0.0, top_p=1.0)
    ids = [
        prompts.prompt_tokens(vlm, case, feature, greedy)
        for case, feature in zip(first, features, strict=True)
    ]
    said = stream.respond(vlm, ids, features, greedy, batch_size=settings.batch_size)
    spoken = [prompts.spoken(vlm, one.tokens, greedy.reasoning) for one in said]
    if any(one.reasoning for one in spoken):
        raise LayeralignError(
            f"screen: model {vlm.checkpoint.name} reasons before it answers, so the start of an answer does "
            "not show whether it refuses; scan it without --screen"
        )
    if any(one.finish_reason == "non-finite" for one in said):
        raise finite.failure(vlm, [vlm.exits.name(vlm.exits.default)])
    refusals = [one.tokens for one, what in zip(said, spoken, strict=True) if refuses(what.answer)]
    if not refusals:
        raise LayeralignError(
            f"screen: at its default exit the model refuses none of {len(said)} harmful cases, so the start "
            "of its refusals is unknown; scan it without --screen"
        )
    found: Counter[Opening] = Counter(tuple(tokens[:TOKENS]) for tokens in refusals)
    apart = [one for one in found if not any(other != one and one[: len(other)] == other for other in found)]
    return Counter(dict(Counter({one: found[one] for one in apart}).most_common(OPENINGS))), len(said)


def _opens(
    vlm: Vlm, rows: Sequence[tuple[Case, int]], openings: Sequence[Opening], decoding: Decoding
) -> list[float]:
    """Call `opens`, in smaller batches if there is not enough memory."""
    try:
        return opens(vlm, rows, openings, decoding)
    except torch.OutOfMemoryError:
        if len(rows) == 1:
            raise too_little(vlm) from None
    half = len(rows) // 2  # after the except block, which frees the memory of the failed pass
    return [one for part in (rows[:half], rows[half:]) for one in _opens(vlm, part, openings, decoding)]


def _ranked(
    vlm: Vlm, harmful: Sequence[Case], exits: Sequence[int], chances: dict[tuple[str, int], float]
) -> tuple[ScreenedExit, ...]:
    prompts = [case.prompt for case in harmful]
    pictures = [case.picture.sha256 if case.picture else case.id for case in harmful]
    found = {}
    for exit in exits:
        values = [1 - chances[case.id, exit] for case in harmful]
        low, high, _ = share_interval(values, prompts, pictures)
        found[exit] = sum(values) / len(values), low or 0.0, 1.0 if high is None else high
    worst = sorted(exits, key=lambda exit: -found[exit][0])
    return tuple(
        ScreenedExit(
            exit, vlm.exits.name(exit), exit == vlm.exits.default, *found[exit], worst.index(exit) + 1
        )
        for exit in exits
    )
