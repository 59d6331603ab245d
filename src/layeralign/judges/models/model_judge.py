"""A judge that asks a language model about each answer and reads its reply."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from layeralign.cases.case import Case
from layeralign.cases.pictures import data_url
from layeralign.errors import LayeralignError
from layeralign.judges.judge import SILENT, Exchange, Judge, Judgement
from layeralign.judges.models.remote import Completion, Message, Talk
from layeralign.judges.models.service import Failure

NO_PICTURE = Judgement("invalid", why="the judge must see the case's picture, which is no longer there")
_TOGETHER_WITH_PICTURES = 32


class Speaker(Protocol):
    """Answers conversations: a local model or a server."""

    def record(self) -> dict[str, Any]:
        """The record that identifies the model."""

    def ask_all(self, conversations: Sequence[Talk], **settings: Any) -> list[Completion | Failure]:
        """Answer each conversation, in order, with a reply or a failure."""


class ModelJudge(Judge):
    """Asks a model about answers; what it cannot ask about, or read, is invalid.

    Args:
        speaker: The model.
        sees: Whether it is given the case's picture, where there is one. If the picture cannot be read, the
            verdict is invalid: no answer is judged without it.
        max_tokens: Longest reply, in tokens.
        options: Arguments of the model's chat template.
    """

    def __init__(
        self, speaker: Speaker, *, sees: bool, max_tokens: int, options: Mapping[str, Any] | None = None
    ) -> None:
        self.speaker, self.sees = speaker, sees
        self._settings = {"max_tokens": max_tokens} | (
            {"chat_template_kwargs": dict(options)} if options else {}
        )
        if sees:
            self.together = _TOGETHER_WITH_PICTURES

    def applies(self, case: Case) -> bool:
        """Whether the answer to a case is judged."""
        return case.kind == "harmful"

    @abstractmethod
    def talk(self, case: Case, answer: str) -> Talk:
        """The conversation that asks about an answer, without the picture."""

    @abstractmethod
    def read(self, case: Case, reply: Completion) -> Judgement:
        """Parse a reply about the answer to a case."""

    def judge_all(self, asked: Sequence[Exchange]) -> list[Judgement]:
        """See `Judge.judge_all`; empty answers are judged like any other."""
        found, talks = [SILENT] * len(asked), {}
        for at, (case, answer) in enumerate(asked):
            if self.applies(case):
                try:
                    talks[at] = self._with_picture(case, self.talk(case, answer))
                except LayeralignError:  # gone, or changed since the scan
                    found[at] = NO_PICTURE
        replies = self.speaker.ask_all(list(talks.values()), **self._settings)
        for at, reply in zip(talks, replies, strict=True):
            found[at] = (
                Judgement("invalid", why=reply.why) if isinstance(reply, Failure)
                else self.read(asked[at][0], reply)
            )  # fmt: skip
        return found

    def _with_picture(self, case: Case, talk: Talk) -> Talk:
        """The conversation with the case's picture before the text of the first turn of the user."""
        if not self.sees or case.picture is None or isinstance(talk, str):
            return talk
        url = data_url(case.picture.open(), "PNG")
        at = next(at for at, turn in enumerate(talk) if turn["role"] == "user")
        text = talk[at]["content"]
        rest = [{"type": "text", "text": text}] if isinstance(text, str) else text
        seen: Message = {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": url}}, *rest],
        }
        return [*talk[:at], seen, *talk[at + 1 :]]
