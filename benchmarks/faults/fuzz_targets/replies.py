"""Replies of judges and their servers, expressions of exits, and any text that a model answers."""

from __future__ import annotations

import contextlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from fuzz_targets.common import Target, each, told, unicode
from layeralign import LayeralignError


def server_reply(work: Path) -> Target:
    """The body of a judge's server, its `Retry-After`, and what is made of its text."""
    import httpx

    import faulty
    from layeralign._util.retry import Retry, seconds
    from layeralign.judges.models.remote import Completion, _reply
    from layeralign.judges.perspective import _score

    def do(data: bytes) -> None:
        seconds(data.decode("latin1"))
        for read in (_reply, _score):
            for status in (200, 400):
                with contextlib.suppress(Retry, LayeralignError):
                    found = read(httpx.Response(status, content=data))
                    if isinstance(found, Completion):
                        judged(found.text, ended=found.ended)

    score = {"attributeScores": {"TOXICITY": {"summaryScore": {"value": 0.5}}}}
    refusal = {"error": {"details": [{"reason": "API_KEY_INVALID"}, {"errorType": "COMMENT_EMPTY"}]}}
    return [told(faulty.completion("unsafe\nS2")), told(score), told(refusal), b"12.5"], do


@cache
def presets() -> list[Any]:
    """The rubrics that ship with layeralign."""
    from layeralign.judges.rubrics.rubric import PRESETS, Rubric

    return [Rubric.read(name) for name in PRESETS]


def judged(text: str, *, ended: bool) -> None:
    """Read a reply by every grammar: a reply that was cut off is never safe."""
    from layeralign.judges.guards.registry import GUARDS

    guards = [guard for guard in GUARDS.values() if ended or not guard.one_token]
    found = [guard.judge(text, ended=ended) for guard in guards]
    found += [rubric.parse(text, ended=ended) for rubric in presets()]
    assert all(one.verdict in ("safe", "unsafe", "invalid") for one in found)
    assert ended or all(one.verdict != "safe" for one in found)


def reply(work: Path) -> Target:
    """A guard's or another judge's reply, by every grammar."""

    def do(data: bytes) -> None:
        text = unicode(data)
        judged(text, ended=True)
        judged(text, ended=False)

    return [
        b"safe",
        b"\n\nunsafe\nS2,S14",
        b"refused: 0\nconvincing: 5\nspecific: 3",
        b"Because.\nverdict: yes",
    ], do


def exits(work: Path) -> Target:
    """An expression of exits."""
    from layeralign.exits import Exits, Track

    encoders = [Exits(8, 7), Exits(32, 31, "local", (Track("global", 8), Track("late", 2, False)))]

    def do(data: bytes) -> None:
        for encoder in encoders:
            each(lambda encoder=encoder: [encoder.name(exit) for exit in encoder.parse(unicode(data))])

    return [b"all", b"early,20", b"1-8,-1", b"local:0-4,global:7", b"default, embedding"], do


def texts(work: Path) -> Target:
    """Functions of a model's answer, which is any text: none may raise."""
    from layeralign._util import text
    from layeralign.cases.case import Case, normalise_category
    from layeralign.judges.guards.guard import defused
    from layeralign.judges.oracle import Oracle, TopicJudge
    from layeralign.judges.refusal import RefusalMatcher
    from layeralign.judges.vqa import VqaJudge
    from layeralign.vlm.text.reasoning import KNOWN, split

    judges = [RefusalMatcher(), VqaJudge(), Oracle(), TopicJudge()]
    facts = {"answers": ["net"] * 9 + ["nets"], "helpful": "yes.", "world": "natural", "noun": "dog"}
    asked = [Case("a", "b", kind, reference="net", facts=facts) for kind in ("harmful", "benign", "vqa")]

    def do(data: bytes) -> None:
        given = unicode(data)
        for judge in judges:
            for case in asked:
                judge.judge(case, given)
        assert "\n" not in text.printable(given, 60) and len(text.redacted(given, 60)) <= 60
        assert not text.has_lone_surrogate(text.printable_lines(given, 60))
        assert json.loads(text.json_line(given)) == given and len(text.json_line(given).splitlines()) == 1
        assert "<|" not in defused(given)
        normalise_category(given)
        split(given, KNOWN)

    return [
        b"I can't help with that.",
        "Lo siento, no puedo. 對不起".encode(),
        b"<think>no</think> It's 2,5 nets.",
    ], do
