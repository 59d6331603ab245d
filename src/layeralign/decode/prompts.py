"""Prompts as token ids, pictures as features, and answers as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from layeralign._util.text import printable
from layeralign.cases.case import Case
from layeralign.decode.decoding import PLAIN, Decoding
from layeralign.errors import LayeralignError
from layeralign.vlm.feature import Feature
from layeralign.vlm.text import reasoning
from layeralign.vlm.text.reasoning import Spoken
from layeralign.vlm.vlm import Vlm


@torch.no_grad()
def encode(vlm: Vlm, pairs: Iterable[tuple[Case, int]]) -> list[Feature | None]:
    """Features of each pair's picture at its exit; None for cases without a picture."""
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


def rendered(vlm: Vlm, text: str, decoding: Decoding, *, picture: bool) -> str:
    """A text as the user's turn in the model's chat template, with the system prompt and date."""
    return vlm.prompt(text, picture=picture, system=decoding.system, date=decoding.date)


def prompt_tokens(vlm: Vlm, case: Case, feature: Feature | None, decoding: Decoding = PLAIN) -> list[int]:
    """Token ids of a case's prompt; `checks.check` should have accepted the case.

    Raises:
        LayeralignError: A token has no embedding.
    """
    text = case.prompt if decoding.special_tokens == "parse" else vlm.literal(case.prompt)
    made = rendered(vlm, text, decoding, picture=feature is not None)
    return embedded(vlm, case, vlm.tokens(made, feature))


def embedded(vlm: Vlm, case: Case, ids: list[int]) -> list[int]:
    """Check that every token id has an embedding, and return the ids.

    Raises:
        LayeralignError: A token has no embedding.
    """
    rows = vlm.embedding_rows
    if missing := [id for id in ids if id >= rows and id != vlm.picture_token_id]:
        name = printable(repr(vlm.tokenizer.decode(missing[:1])), 60)
        raise LayeralignError(
            f"case {case.id!r}: the prompt contains {name} (token {missing[0]}), but model "
            f"{vlm.checkpoint.name} has only {rows} embeddings; remove it"
        )
    return ids


def ended(vlm: Vlm, line: Sequence[int]) -> tuple[list[int], bool]:
    """An answer's tokens up to and including its end token, and whether there is one."""
    for length, token in enumerate(line, 1):
        if token in vlm.eos_tokens:
            return list(line[:length]), True
    return list(line), False


def spoken(vlm: Vlm, tokens: Sequence[int], marks: str = "auto") -> Spoken:
    """Decode an answer's tokens to its reasoning and the answer after it, without special tokens.

    Args:
        vlm: The model.
        tokens: Token ids of the answer.
        marks: Marks around the reasoning; see `Decoding.reasoning`.
    """
    if marks == "none":
        return Spoken("", _text(vlm, tokens, frozenset()).strip(), answered=True)
    if marks == "auto":
        return reasoning.split(_text(vlm, tokens, vlm.special_marks), vlm.marks)
    known = (reasoning.parse(marks),)
    return reasoning.split(_text(vlm, tokens, reasoning.pieces(known)), known)


def text(vlm: Vlm, tokens: Sequence[int]) -> str:
    """Decode an answer's tokens to text, without special tokens and reasoning."""
    return spoken(vlm, tokens).answer


def _text(vlm: Vlm, tokens: Sequence[int], kept: frozenset[str]) -> str:
    """Decode tokens to text, dropping all special tokens except those in `kept`."""
    names, special = vlm.tokenizer, vlm.special_tokens
    if not kept or not any(special.get(token) in kept for token in tokens):
        return str(names.decode(tokens, skip_special_tokens=True))
    left = [token for token in tokens if token not in special or special[token] in kept]
    return str(names.decode(left, skip_special_tokens=False))
