"""Reasoning before an answer: the marks around it, and an answer without it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from layeralign.errors import LayeralignError


@dataclass(frozen=True)
class Marks:
    """What a model writes before and behind its reasoning.

    Attributes:
        opens: before it.
        closes: behind it.
        begun: whether the prompt ends behind `opens`, so that the answer begins within the reasoning.
        certain: whether `closes` without `opens` ends a reasoning, too: the checkpoint knows these marks.
    """

    opens: str
    closes: str
    begun: bool = False
    certain: bool = False


KNOWN = (
    Marks("<think>", "</think>"),  # DeepSeek-R1, Qwen3, GLM-4.1V, Hunyuan, MiniMax
    Marks("<thinking>", "</thinking>"),
    Marks("<thought>", "</thought>"),
    Marks("<reasoning>", "</reasoning>"),
    Marks("[THINK]", "[/THINK]"),  # Mistral
    Marks("<seed:think>", "</seed:think>"),  # Seed-OSS
    Marks("◁think▷", "◁/think▷"),  # Kimi-VL
    Marks("<SUMMARY>", "<CONCLUSION>"),  # LLaVA-CoT
    Marks("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1 and LLaMA-o1
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    Marks("<|channel>thought", "<channel|>"),  # Gemma 4
    Marks("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # harmony (gpt-oss)
)
"""Marks of models in use, in the order in which they are tried."""
_AROUND = (
    ("<answer>", "</answer>"),  # R1-style models
    ("<|begin_of_box|>", "<|end_of_box|>"),  # GLM-4.1V
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("", "</CONCLUSION>"),
)
"""What may stand around an answer behind its reasoning, and is no part of it."""


class Spoken(NamedTuple):
    """What a model wrote.

    Attributes:
        reasoning: what comes before the answer; empty where there is none.
        answer: what its user is told.
        answered: False where the reasoning did not end, so that there is no answer.
    """

    reasoning: str
    answer: str
    answered: bool


def known_to(template: str, tokens: Sequence[str], prompt_end: str) -> tuple[Marks, ...]:
    """The marks of `KNOWN`, with what a checkpoint says of them.

    Args:
        template: its chat template's text.
        tokens: its tokenizer's added tokens.
        prompt_end: what its template writes behind the user's text, up to where the answer begins.
    """
    found = []
    for marks in KNOWN:
        certain = marks.closes in tokens or marks.opens in tokens or marks.closes in template
        begun = prompt_end.rfind(marks.opens) > prompt_end.rfind(marks.closes)
        found.append(Marks(marks.opens, marks.closes, begun, certain or begun))
    return tuple(sorted(found, key=lambda marks: not marks.certain))


def parse(given: str) -> Marks:
    """Marks as a user writes them, with a blank between: `<r> </r>`.

    Raises:
        LayeralignError: they are not two.
    """
    parts = given.split()
    if len(parts) != 2 or parts[0] == parts[1]:
        raise LayeralignError(
            f"reasoning {given!r}: expected two different marks separated by a blank, such as "
            "'<think> </think>', or auto or none"
        )
    return Marks(parts[0], parts[1], certain=True)


def split(written: str, marks: Sequence[Marks]) -> Spoken:
    """Take an answer's reasoning off.

    Reasoning is what stands between marks at the answer's beginning. Marks further down are part of the
    answer.

    Args:
        written: all that the model wrote, marks included.
        marks: that it may have used.
    """
    text = written.lstrip()
    for one in marks:
        opened = text.startswith(one.opens)
        if not (opened or one.begun or (one.certain and one.closes in written)):
            continue
        inside = text.removeprefix(one.opens)
        reasoning, closed, answer = inside.partition(one.closes)
        while reasoning.count(one.opens) > reasoning.count(one.closes) and one.closes in answer:
            more, _, answer = answer.partition(one.closes)  # a section within the section
            reasoning = f"{reasoning}{one.closes}{more}"
        while closed and (again := answer.lstrip()).startswith(
            one.opens
        ):  # several sections one behind the other
            more, closed, answer = again.removeprefix(one.opens).partition(one.closes)
            reasoning = f"{reasoning.rstrip()}\n{more.lstrip()}"
        if one.begun and not opened and not closed and not text:
            return Spoken("", "", answered=False)
        return Spoken(reasoning.strip(), _bare(answer) if closed else "", bool(closed))
    return Spoken("", written.strip(), answered=True)


def _bare(answer: str) -> str:
    """An answer without what is written around it; of one that was cut, only the beginning is there."""
    found = answer.strip()
    for opens, closes in _AROUND:
        if found.startswith(opens):
            found = found.removeprefix(opens).removesuffix(closes).strip()
    return found


def pieces(marks: Sequence[Marks]) -> frozenset[str]:
    """The tokens that marks are made of, where they are special ones, as `<|channel|>`."""
    return frozenset(
        piece for one in marks for mark in (one.opens, one.closes) for piece in (mark, *_TOKEN.findall(mark))
    )


_TOKEN = re.compile(r"<\|[^|<>]+\|>|<\|[^|<>]+>|<[^|<>]+\|>")
