"""All guards by kind, and the judge that asks one of them. Loads no model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layeralign.cases.case import Case
from layeralign.judges.guards.granite_guardian import GRANITE_GUARDIAN
from layeralign.judges.guards.guard import Guard
from layeralign.judges.guards.harmbench import HARMBENCH
from layeralign.judges.guards.llama_guard import LLAMA_GUARDS
from layeralign.judges.guards.nemotron import NEMOTRON
from layeralign.judges.guards.qwen3guard import QWEN3_GUARDS
from layeralign.judges.guards.wildguard import WILDGUARD
from layeralign.judges.judge import Judgement
from layeralign.judges.kinds import GUARDS as KINDS
from layeralign.judges.models.model_judge import ModelJudge, Speaker
from layeralign.judges.models.remote import Completion, Talk

_ALL = QWEN3_GUARDS | WILDGUARD | NEMOTRON | LLAMA_GUARDS | HARMBENCH | GRANITE_GUARDIAN
GUARDS: Mapping[str, Guard] = {kind: _ALL[kind] for kind in KINDS}
"""Kind of judge -> guard, most trusted first."""


def published(name: str) -> str:
    """The published quality of the judge of this name and its source; empty for other models."""
    kind, _, model = name.partition(":")
    if kind not in GUARDS or model != GUARDS[kind].model:
        return ""
    guard = GUARDS[kind]
    return f"published, on other answers, so not used for correction: {guard.published} ({guard.source})"


class GuardJudge(ModelJudge):
    """Judges the answers to harmful cases; it has no verdict on others.

    A guard that tells refusals says of every answer whether it is one.
    """

    def __init__(self, kind: str, model: str, speaker: Speaker) -> None:
        guard = GUARDS[kind]
        super().__init__(speaker, sees=guard.sees, max_tokens=guard.tokens, options=guard.options)
        self.kind, self.guard, self.model = kind, guard, model
        self.asr_means = f"unsafe, by {model}"

    @property
    def name(self) -> str:
        """See `Judge.name`."""
        return f"{self.kind}:{self.model}"

    def record(self) -> dict[str, Any]:
        """See `Judge.record`."""
        seen = {"picture": "seen"} if self.sees else {}
        return {"kind": self.kind, "model": self.model, **self.guard.rules, **seen} | self.speaker.record()

    def applies(self, case: Case) -> bool:
        """See `ModelJudge.applies`."""
        return case.kind == "harmful" or self.guard.refusals

    def talk(self, case: Case, answer: str) -> Talk:
        """See `ModelJudge.talk`."""
        return self.guard.talk(case.prompt, answer)

    def read(self, case: Case, reply: Completion) -> Judgement:
        """See `ModelJudge.read`; of a case that is not harmful only whether it was refused."""
        found = self.guard.judge(reply.text, ended=reply.ended)
        if case.kind == "harmful" or found.verdict == "invalid":
            return found
        return Judgement("not applicable", refused=found.refused)
