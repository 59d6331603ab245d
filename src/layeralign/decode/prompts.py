"""Cases as a model is asked them: prompts as tokens, pictures as features; and tokens as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from layeralign.cases.case import Case
from layeralign.errors import LayeralignError
from layeralign.text import printable
from layeralign.vlm.vlm import Feature, Vlm


@torch.no_grad()
def encode(vlm: Vlm, pairs: Iterable[tuple[Case, int]]) -> list[Feature | None]:
    """Features of each pair's picture at its exit; None without one."""
    pairs = list(pairs)
    exits_of: dict[str, set[int]] = {}
    picture_of = {case.picture.sha256: case.picture for case, _ in pairs if case.picture}
    for case, exit in pairs:
        if case.picture:
            exits_of.setdefault(case.picture.sha256, set()).add(exit)
    by_exits: dict[tuple[int, ...], list[str]] = {}
    for name, exits in exits_of.items():
        by_exits.setdefault(tuple(sorted(exits)), []).append(name)
    seen: dict[tuple[str, int], Feature] = {}
    for exits_asked, names in by_exits.items():
        states = vlm.encode([picture_of[name].open() for name in names], exits_asked)
        for exit, rows in states.items():
            seen.update({(name, exit): row for name, row in zip(names, rows, strict=True)})
    return [seen[case.picture.sha256, exit] if case.picture else None for case, exit in pairs]


def rehearse(vlm: Vlm, cases: Sequence[Case], system: str = "") -> None:
    """See that every prompt can be put to the model, and the strangest pictures; answers nothing.

    Raises:
        LayeralignError: a prompt cannot, or the model's tower, processor and template do not fit.
    """
    for case in cases:
        prompt_tokens(vlm, case, None, system)
    seen = [case for case in cases if case.picture]
    for case in _extremes(seen):
        _rehearse_picture(vlm, case)


def _extremes(cases: Sequence[Case]) -> list[Case]:
    """Of cases with pictures, those whose picture is the first, the smallest, the largest, the longest."""

    def size(case: Case) -> tuple[int, int]:
        return getattr(case.picture, "size", (1, 1))

    def area(case: Case) -> int:
        return size(case)[0] * size(case)[1]

    def length(case: Case) -> float:
        return max(size(case)) / max(min(size(case)), 1)

    if not cases:
        return []
    found = [cases[0], min(cases, key=area), max(cases, key=area), max(cases, key=length)]
    return list({case.id: case for case in found}.values())


def _rehearse_picture(vlm: Vlm, first: Case) -> None:
    try:
        (feature,) = encode(vlm, [(first, vlm.exits.all[0])])
    except LayeralignError as error:
        where = first.picture.path if first.picture else ""
        raise LayeralignError(f"case {first.id!r}: {error} ({where or 'a drawn picture'})") from error
    except Exception as error:  # whatever a tower does with what does not fit it
        raise LayeralignError(
            f"model {vlm.checkpoint.name}: its encoder cannot take what its processor makes of a picture "
            f"({printable(str(error), 200) or type(error).__name__})"
        ) from error
    wanted = 0 if feature is None else feature.text.count(vlm.picture_token)
    placed = prompt_tokens(vlm, first, feature).count(vlm.picture_token_id)
    if placed != wanted:
        raise LayeralignError(
            f"model {vlm.checkpoint.name}: its chat template makes {placed} places "
            f"for {wanted} picture tokens"
        )


def prompt_tokens(vlm: Vlm, case: Case, feature: Feature | None, system: str = "") -> list[int]:
    """Token ids of a case's prompt, behind what the model is told first, in its chat template.

    Raises:
        LayeralignError: a text holds the model's own picture placeholder, or a token without embedding, or
            the template has no place for `system`.
    """
    for where, said in ((f"case {case.id!r}: field 'prompt'", case.prompt), ("system", system)):
        for token in (vlm.placeholder, vlm.picture_token):
            if token in said:
                raise LayeralignError(
                    f"{where} holds {token!r}, which this model reads as a picture; take it out (the picture "
                    "is put in by itself)"
                )
    ids = vlm.tokens(vlm.prompt(case.prompt, picture=feature is not None, system=system), feature)
    if strange := [id for id in ids if id >= vlm.embedding_rows and id != vlm.picture_token_id]:
        name = printable(repr(vlm.tokenizer.decode(strange[:1])), 60)
        raise LayeralignError(
            f"case {case.id!r}: the prompt contains {name} (token {strange[0]}), but model "
            f"{vlm.checkpoint.name} has only {vlm.embedding_rows} embeddings; remove it"
        )
    return ids


def ended(vlm: Vlm, line: Sequence[int]) -> tuple[list[int], bool]:
    """An answer's tokens up to its end token, that included, and whether there is one."""
    for length, token in enumerate(line, 1):
        if token in vlm.eos_tokens:
            return list(line[:length]), True
    return list(line), False


def text(vlm: Vlm, tokens: Sequence[int]) -> str:
    """What an answer's tokens say, without special tokens."""
    return str(vlm.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
