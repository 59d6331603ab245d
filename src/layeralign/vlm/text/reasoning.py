"""Reasoning before an answer: its marks, and its removal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from layeralign.errors import LayeralignError


@dataclass(frozen=True)
class Marks:
    """The marks around a model's reasoning.

    Attributes:
        opens: Mark before the reasoning.
        closes: Mark after the reasoning.
        begun: Whether the prompt ends with `opens`, so that the output starts inside the reasoning.
        certain: Whether `closes` ends a reasoning even without `opens`, since the checkpoint has these marks.
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
"""Marks of known models, in the order in which they are tried."""
_AROUND = (
    ("<answer>", "</answer>"),  # R1-style models
    ("<|begin_of_box|>", "<|end_of_box|>"),  # GLM-4.1V
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("", "</CONCLUSION>"),
)
"""Marks around an answer after its reasoning; they are not part of the answer."""


class Spoken(NamedTuple):
    """A model's output, split into reasoning and answer.

    Attributes:
        reasoning: The reasoning before the answer; empty if there is none.
        answer: The answer.
        answered: False if the reasoning did not end, so that there is no answer.
    """

    reasoning: str
    answer: str
    answered: bool


def known_to(template: str, tokens: Sequence[str], prompt_end: str) -> tuple[Marks, ...]:
    """The marks in `KNOWN`, with `begun` and `certain` for a checkpoint; certain marks come first.

    Args:
        template: Text of its chat template.
        tokens: Added tokens of its tokenizer.
        prompt_end: Text that its template writes between the user's text and the answer.
    """
    found = []
    for marks in KNOWN:
        certain = marks.closes in tokens or marks.opens in tokens or marks.closes in template
        begun = prompt_end.rfind(marks.opens) > prompt_end.rfind(marks.closes)
        found.append(Marks(marks.opens, marks.closes, begun, certain or begun))
    return tuple(sorted(found, key=lambda marks: not marks.certain))


def parse(given: str) -> Marks:
    """Parse marks separated by a blank: `<r> </r>`.

    Raises:
        LayeralignError: There are not two different marks.
    """
    parts = given.split()
    if len(parts) != 2 or parts[0] == parts[1]:
        raise LayeralignError(
            f"reasoning {given!r}: expected two different marks separated by a blank, such as "
            "'<think> </think>', or auto or none"
        )
    return Marks(parts[0], parts[1], certain=True)


def split(written: str, marks: Sequence[Marks]) -> Spoken:
    """Split a model's output into reasoning and answer.

    Reasoning is the text between marks at the start of the output. Later marks are part of the answer.

    Args:
        written: The model's complete output, including marks.
        marks: Marks that it may have used.
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
        # There may be several sections of reasoning in a row
        while closed and (again := answer.lstrip()).startswith(one.opens):
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
    """The marks and the tokens in them that look special, such as `<|channel|>`."""
    return frozenset(
        piece for one in marks for mark in (one.opens, one.closes) for piece in (mark, *_TOKEN.findall(mark))
    )


_TOKEN = re.compile(r"<\|[^|<>]+\|>|<\|[^|<>]+>|<[^|<>]+\|>")
