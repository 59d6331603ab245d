"""Chat templates: rendering at a given date, tokenisation, and control tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date as Date
from datetime import datetime, time
from typing import Any

from transformers.utils import chat_template_utils as jinja

from layeralign._util.text import printable
from layeralign.errors import LayeralignError

JUDGE_DATE = "2026-01-01"
"""The date given to a judge's template, so that verdicts do not depend on the current date."""
SENTINEL = "layeralign-stands-here"
"""A text that occurs in no template, to find where a template puts texts."""
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
_MONTHS = "January February March April May June July August September October November December"


def render(processor: Any, what: str, turns: Sequence[Mapping[str, Any]], date: str, **options: Any) -> str:
    """Render a conversation in the model's own chat template.

    Args:
        processor: The model's processor or tokenizer.
        what: Owner of the template for messages, such as `model NAME`.
        turns: Messages, whose content is a list of parts.
        date: Date for a template that uses one, such as `2026-11-28`; empty for today's.
        options: Arguments of `apply_chat_template`.

    Raises:
        LayeralignError: The template fails.
    """
    try:
        with _clock(source(processor), date):
            return str(processor.apply_chat_template(list(turns), **options))
    except Exception as error:  # a template is a program in the checkpoint, run in a sandbox
        raise LayeralignError(f"{what}: its chat template fails ({printable(str(error), 200)})") from error


def refuse_system(model: str, system: str) -> None:
    """Refuse a system prompt of a model that has no chat template.

    Raises:
        LayeralignError: It is not empty.
    """
    if system:
        raise LayeralignError(f"model {model}: does not support a system prompt; remove it")


def source(processor: Any) -> str:
    """The chat template's text; empty if there is none."""
    found = getattr(processor, "chat_template", None)
    found = found.get("default") if isinstance(found, Mapping) else found
    return found or ""


def reads_clock(template: str) -> bool:
    """Whether a chat template's text names the function that tells it the time."""
    return "strftime_now" in template


@contextmanager
def _clock(template: str, date: str) -> Iterator[None]:
    """Context in which the template's `strftime_now` returns this date, in English for any locale."""
    if not date or not reads_clock(template):
        yield
        return
    now = datetime.combine(Date.fromisoformat(date), time())

    def strftime_now(format: str) -> str:
        names = {"%A": _DAYS.split()[now.weekday()], "%B": _MONTHS.split()[now.month - 1]}
        names |= {"%a": names["%A"][:3], "%b": names["%B"][:3], "%h": names["%B"][:3], "%p": "AM", "%Z": ""}
        return now.strftime(re.sub("%[ABabhpZ]", lambda found: names[found[0]], format))

    # The globals of the cached template, which transformers renders
    functions = jinja._compile_jinja_template(template).globals
    functions["strftime_now"] = strftime_now
    try:
        yield
    finally:
        del functions["strftime_now"]


def check_turns(made: str, turns: int, what: str) -> None:
    """See that a conversation reached a model, each of whose turns says `SENTINEL`.

    Args:
        made: what its template made of it.
        turns: of the conversation.
        what: whose template it is, for messages.

    Raises:
        LayeralignError: the template loses a turn, or writes one twice.
    """
    if made.count(SENTINEL) != turns:
        shown = printable(repr(made.replace(SENTINEL, "TEXT")), 400)
        raise LayeralignError(
            f"{what}: its chat template writes {made.count(SENTINEL)} texts where {turns} are given, so that "
            f"something else would be judged; name the kind of judge that it is for, or correct it; it "
            f"makes {shown}"
        )


def encode(names: Any, text: str, before: Sequence[int], *, writes_bos: bool) -> list[int]:
    """Token ids of a rendered conversation, with exactly one BOS and no EOS at the end.

    An EOS that the tokenizer would add would end the turn in which the answer follows.

    Args:
        names: The tokenizer.
        text: A rendered template; control tokens marked by `marked` become text.
        before: Result of `written_before` for the tokenizer.
        writes_bos: Whether the template writes the BOS.
    """
    if jinja._CONTROL_TOKEN_START in text:
        ids = list(jinja.encode_marked_chat(names, text))
    else:
        ids = list(names(text, add_special_tokens=False)["input_ids"])
    if writes_bos or ids[: len(before)] == list(before):
        return ids
    return [*before, *ids]


def written_before(names: Any) -> list[int]:
    """The ids that a tokenizer adds before a text: usually the BOS, or nothing."""
    whole, plain = (names("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    starts = (at for at in range(len(whole)) if whole[at : at + len(plain)] == plain)
    return list(whole[: next(starts, 0)])


def control_tokens(names: Any, template: str) -> re.Pattern[str]:
    """A pattern that finds a tokenizer's control tokens, such as `</s>`, in a text."""
    found: re.Pattern[str]
    found, _ = jinja._get_control_token_patterns(names._get_control_tokens(template))
    return found


def marked(text: str, pattern: re.Pattern[str]) -> str:
    """Mark the control tokens in a user's text, so that `encode` reads them as text."""
    return str(jinja.mark_control_tokens(text, pattern)) if pattern.search(text) else text


def tags_of_others(text: str, own: set[str]) -> list[str]:
    """Picture tags of other models in a text; `own` are this model's tags."""
    return [tag for tag in _TAGS if tag in text and tag not in own]


_TAGS = (
    "<image>", "<|image|>", "<|image_pad|>", "<|image_1|>", "<image_soft_token>", "<start_of_image>",
    "<|vision_start|>", "<IMG_CONTEXT>", "[IMG]", "<ImageHere>", "<image_placeholder>", "<|media_pad|>",
    "<fake_token_around_image>",
)  # fmt: skip
