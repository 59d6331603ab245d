"""Checks before decoding: every case must reach the model unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from layeralign._util.text import printable
from layeralign.cases.case import Case, Picture
from layeralign.decode.decoding import Decoding
from layeralign.decode.prompts import embedded, encode, rendered
from layeralign.errors import LayeralignError
from layeralign.vlm.text import template
from layeralign.vlm.text.ends import disagreement
from layeralign.vlm.vlm import Vlm

Sizes = Mapping[str, tuple[int, int]]
"""Case -> width and height of its picture."""
_AGAIN = 16
"""Times that a prompt is rendered anew: a template that draws one of two words makes the same one half the
time."""


def check(vlm: Vlm, cases: Sequence[Case], decoding: Decoding) -> list[str]:
    """Check that the model can be asked every case, and encode the most extreme pictures.

    Returns:
        Notes for the user on unusual input.

    Raises:
        LayeralignError: The chat template drops a text or the picture, a text contains a picture tag, a
            prompt is longer than the model's context, or tower, processor and template do not fit.
    """
    if decoding.date and not vlm.reads_date:
        raise LayeralignError(
            f"date {decoding.date}: the chat template of model {vlm.checkpoint.name} uses no date; remove it"
        )
    check_tags(vlm, "system", decoding.system)
    for picture in sorted({case.picture is not None for case in cases}):
        check_template(vlm, decoding, picture=picture)
    sizes = {case.id: _size(case.picture) for case in cases if case.picture}
    for case in _extremes([case for case in cases if case.picture], sizes):
        _try_picture(vlm, case)
    found = {case.id: _check_case(vlm, case, decoding) for case in cases}
    _check_context(vlm, cases, {id: length for id, (length, _) in found.items()}, sizes, decoding)
    return _notes(vlm, cases, [case for case in cases if found[case.id][1]], decoding)


def dated(vlm: Vlm, decoding: Decoding, known: str, today: str) -> Decoding:
    """Set the date for the chat template, if it uses one.

    Args:
        vlm: The model.
        decoding: Decoding settings; their `date` has priority.
        known: Date of the run or training to resume; empty if there is none.
        today: Today's date, used otherwise.
    """
    if decoding.date or not vlm.reads_date:
        return decoding
    return replace(decoding, date=known or today)


# --- text


def check_template(vlm: Vlm, decoding: Decoding, *, picture: bool) -> None:
    """Check that the template's output has system prompt, one picture placeholder and text, in this order.

    Raises:
        LayeralignError: It has not, or the output is not deterministic.
    """
    made = rendered(vlm, template.SENTINEL, decoding, picture=picture)
    shown = f"; its output is {printable(repr(made), 400)}"
    where = f"model {vlm.checkpoint.name}: its chat template"
    if any(made != rendered(vlm, template.SENTINEL, decoding, picture=picture) for _ in range(_AGAIN)):
        raise LayeralignError(f"{where} gives a different prompt for the same request each time{shown}")
    for how in ("'type': 'text'", '"type": "text"'):
        if how in made:
            raise LayeralignError(f"{where} prints the parts of a message as data{shown}")
    if made.count(template.SENTINEL) != 1:
        raise LayeralignError(
            f"{where} writes the request's text {made.count(template.SENTINEL)} times; expected exactly once"
            + shown.replace(template.SENTINEL, "TEXT")
        )
    places = made.count(vlm.placeholder)
    if places != int(picture):
        raise LayeralignError(f"{where} writes {places} placeholders for {int(picture)} pictures{shown}")
    at = [
        made.find(decoding.system.strip()) if decoding.system else 0,
        made.find(vlm.placeholder) if picture else made.find(template.SENTINEL),
        made.find(template.SENTINEL),
    ]
    if at != sorted(at):
        raise LayeralignError(f"{where} does not write system prompt, picture and text in this order{shown}")


def _check_case(vlm: Vlm, case: Case, decoding: Decoding) -> tuple[int, bool]:
    """Check that a case's text is in its prompt unchanged.

    Returns:
        Tokens of the prompt, counting its picture as one; and whether some of its words are unknown.
    """
    check_tags(vlm, f"case {case.id!r}: field 'prompt'", case.prompt)
    picture, literal = case.picture is not None, vlm.literal(case.prompt)
    made = rendered(vlm, case.prompt, decoding, picture=picture)
    if case.prompt.strip() not in made:
        raise LayeralignError(
            f"case {case.id!r}: the chat template of model {vlm.checkpoint.name} changes or drops its text; "
            f"its output is {printable(repr(made), 400)}"
        )
    if decoding.special_tokens == "literal" and literal != case.prompt:
        made = rendered(vlm, literal, decoding, picture=picture)
    ids = embedded(vlm, case, vlm.tokens(made, None))
    return len(ids), has_unknown_words(vlm, f"case {case.id!r}", literal, ids)


def has_unknown_words(vlm: Vlm, where: str, text: str, ids: Sequence[int]) -> bool:
    """Whether the tokenizer does not know some words of a text.

    Args:
        vlm: The model.
        where: Place of the text, for the error message.
        text: The text, as `Vlm.literal` returns it.
        ids: Tokens of its prompt.

    Raises:
        LayeralignError: It does not know most of them.
    """
    lost: int | None = vlm.tokenizer.unk_token_id
    if lost is None or lost not in ids:
        return False
    own: list[int] = vlm.tokenizer(text, add_special_tokens=False)["input_ids"]
    unknown = sum(token == lost for token in own)
    if 2 * unknown > len(own):
        raise LayeralignError(
            f"{where}: model {vlm.checkpoint.name} cannot read its text, since {unknown} of its "
            f"{len(own)} tokens are unknown to the tokenizer; remove the case or use another model"
        )
    return unknown > 0


def check_tags(vlm: Vlm, where: str, text: str) -> None:
    """Refuse text that this or another model reads as a picture."""
    own = {vlm.placeholder, vlm.picture_token}
    for token in own:
        if token in text:
            raise LayeralignError(
                f"{where} contains {token!r}, which this model reads as a picture; remove it, since the "
                "picture is inserted automatically"
            )
    for tag in template.tags_of_others(text, own | vlm.added_tokens):
        raise LayeralignError(
            f"{where} contains {tag!r}, another model's picture tag, which this model would read as text; "
            "remove it, since the picture in field 'image' is inserted automatically"
        )


# --- pictures


def _extremes(cases: Sequence[Case], sizes: Sizes) -> list[Case]:
    """The cases with the first, smallest, largest and most elongated picture."""

    def area(case: Case) -> int:
        return sizes[case.id][0] * sizes[case.id][1]

    def length(case: Case) -> float:
        return max(sizes[case.id]) / max(min(sizes[case.id]), 1)

    if not cases:
        return []
    found = [cases[0], min(cases, key=area), max(cases, key=area), max(cases, key=length)]
    return list({case.id: case for case in found}.values())


def _size(picture: Picture) -> tuple[int, int]:
    """Size of a picture in pixels; a picture without `size` is drawn to measure it."""
    found: tuple[int, int] = getattr(picture, "size", None) or picture.open().size
    return found


def _try_picture(vlm: Vlm, case: Case) -> None:
    try:
        (feature,) = encode(vlm, [(case, vlm.exits.all[0])])
    except LayeralignError as error:
        where = case.picture.path if case.picture else ""
        raise LayeralignError(f"case {case.id!r}: {error} ({where or 'a generated picture'})") from error
    except Exception as error:  # a tower can raise anything for unsuitable input
        raise LayeralignError(
            f"model {vlm.checkpoint.name}: its encoder fails on its processor's output for a picture "
            f"({printable(str(error), 200) or type(error).__name__})"
        ) from error
    wanted = 0 if feature is None else feature.text.count(vlm.picture_token)
    placed = vlm.tokens(vlm.prompt("Hello.", picture=True), feature).count(vlm.picture_token_id)
    if placed != wanted:
        raise LayeralignError(
            f"model {vlm.checkpoint.name}: its chat template writes {placed} placeholders "
            f"for {wanted} picture tokens"
        )


# --- length


def _check_context(
    vlm: Vlm, cases: Sequence[Case], lengths: dict[str, int], sizes: Sizes, decoding: Decoding
) -> None:
    """Refuse prompts that exceed the model's positions together with the longest answer."""
    if vlm.context is None or not cases:
        return
    known: dict[tuple[int, int], int] = {}
    tokens = {}
    for case in cases:
        tokens[case.id] = lengths[case.id]
        if case.picture:
            size = sizes[case.id]
            if size not in known:
                text = vlm.picture_text(case.picture.open())
                known[size] = len(vlm.tokenizer(text, add_special_tokens=False)["input_ids"]) - 1
            tokens[case.id] += known[size]
    longest = max(tokens, key=lambda id: tokens[id])
    over = sum(n + decoding.max_new_tokens > vlm.context for n in tokens.values())
    if over:
        raise LayeralignError(
            f"case {longest!r}: its prompt of {tokens[longest]} tokens and an answer of "
            f"{decoding.max_new_tokens} exceed the {vlm.context} positions of model {vlm.checkpoint.name}; "
            f"shorten the {over} of {len(tokens)} cases that are too long, or lower max_new_tokens"
        )


# --- notes


def _notes(vlm: Vlm, cases: Sequence[Case], unknown: Sequence[Case], decoding: Decoding) -> list[str]:
    found = [note] if (note := disagreement(vlm, vlm.ends)) else []
    holding = [case for case in cases if vlm.literal(case.prompt) != case.prompt]
    if holding:
        how = "as text" if decoding.special_tokens == "literal" else "as special tokens"
        found.append(f"{_count(holding)} this model's special tokens in the text; they are read {how}")
    if unknown:
        found.append(f"{_count(unknown)} words that are unknown to this model's tokenizer")
    return found


def _count(cases: Sequence[Case]) -> str:
    more = ", ..." if len(cases) > 1 else ""
    return f"{len(cases)} {'cases have' if len(cases) > 1 else 'case has'} ({cases[0].id!r}{more})"
