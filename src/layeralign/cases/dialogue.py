"""A request and its answer as dialogue text in the format of HH-RLHF (Bai et al. 2022)."""

from __future__ import annotations

ASSISTANT = "\n\nAssistant:"
"""The text that starts an answer."""


def human_turn(prompt: str, scene: str | None = None) -> str:
    """The request; `scene`, a description of the picture in words, goes before it in brackets."""
    return prompt if scene is None else f"[{scene}] {prompt}"


def dialogue(human: str, answer: str) -> str:
    r"""Format as `\\n\\nHuman: ...\\n\\nAssistant: ...`, with the answer stripped of white space."""
    return f"\n\nHuman: {human}{ASSISTANT} {answer.strip()}"
