"""A request's conversation as tokens, and an answer's tokens as text."""

from __future__ import annotations

from collections.abc import Sequence

from layeralign.decode import checks
from layeralign.decode.prompts import embedded, spoken
from layeralign.errors import LayeralignError
from layeralign.serving.requests import Asked
from layeralign.vlm.feature import Feature
from layeralign.vlm.text.reasoning import Spoken, parse
from layeralign.vlm.vlm import Vlm


def prompt_ids(vlm: Vlm, asked: Asked, feature: Feature | None) -> list[int]:
    """Token ids of a request's conversation; for a single turn those of the same case in a scan.

    Raises:
        LayeralignError: The chat template does not support it, or the model cannot read it.
    """
    decoding, turns = asked.decoding, []
    texts = [("system", decoding.system)] if decoding.system else []
    texts += [(f"messages ({turn.role})", turn.text) for turn in asked.turns]
    for where, text in texts:
        checks.check_tags(vlm, where, text)
    literal = decoding.special_tokens == "literal"
    for turn in asked.turns:
        message = turn.message()
        message["content"][-1]["text"] = vlm.literal(turn.text) if literal else turn.text
        turns.append(message)
    if decoding.system:
        vlm.prompt("Hello.", picture=False, system=decoding.system)  # whether the template has a system turn
        turns.insert(0, {"role": "system", "content": [{"type": "text", "text": decoding.system}]})
    made, at = vlm.conversation(turns, decoding.date), 0
    for message in turns:
        text = message["content"][-1]["text"].strip()
        if (at := made.find(text, at)) < 0:
            raise LayeralignError("messages: the chat template of the model changes or drops a message")
        at += len(text)
    if made.count(vlm.placeholder) != (feature is not None):
        raise LayeralignError("messages: the chat template of the model drops the picture")
    ids = embedded(vlm, asked.case, vlm.tokens(made, feature))
    for message in turns:
        checks.has_unknown_words(vlm, "messages", message["content"][-1]["text"], ids)
    return ids


def said(vlm: Vlm, tokens: Sequence[int], asked: Asked) -> tuple[Spoken, str, bool]:
    """What the model wrote, its answer up to the first stop text, and whether there is a stop text."""
    reply = spoken(vlm, tokens, asked.decoding.reasoning)
    ends = [at for stop in asked.stop if (at := reply.answer.find(stop)) >= 0]
    return reply, reply.answer[: min(ends, default=None)], bool(ends)


def certain(vlm: Vlm, text: str, asked: Asked) -> str:
    """The part of an unfinished answer that no later token can change.

    It is empty where the model may be reasoning: only the whole answer shows where the reasoning ends.
    """
    given = asked.decoding.reasoning
    marks = () if given == "none" else vlm.marks if given == "auto" else (parse(given),)
    if any(m.certain or m.opens.startswith(text[: len(m.opens)]) for m in marks):
        return ""
    held = max((len(stop) - 1 for stop in asked.stop), default=0)
    return text.rstrip("\ufffd")[: max(0, len(text) - held)]
