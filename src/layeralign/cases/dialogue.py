"""A request and its answer as the text of a dialogue, in the form of HH-RLHF (Bai et al. 2022)."""

from __future__ import annotations

ASSISTANT = "\n\nAssistant:"
"""What opens an answer."""


def human_turn(prompt: str, scene: str | None = None) -> str:
    """The request; with `scene`, the picture is told in words before it."""
    return prompt if scene is None else f"[{scene}] {prompt}"


def dialogue(human: str, answer: str) -> str:
    r"""`\\n\\nHuman: ...\\n\\nAssistant: ...`, the answer without blanks around it."""
    return f"\n\nHuman: {human}{ASSISTANT} {answer.strip()}"
