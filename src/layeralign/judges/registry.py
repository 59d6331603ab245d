"""The judges that there are, by name, and how much they are trusted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from layeralign.errors import LayeralignError
from layeralign.judges.guard import GUARDS, GuardJudge
from layeralign.judges.judge import Judge, RowJudge
from layeralign.judges.labels import HUMAN
from layeralign.judges.local import LocalSpeaker
from layeralign.judges.oracle import Oracle
from layeralign.judges.refusal import RefusalMatcher
from layeralign.judges.remote import Endpoint

_ROWS: dict[str, type[RowJudge]] = {Oracle.kind: Oracle, RefusalMatcher.kind: RefusalMatcher}
KINDS = (Oracle.kind, *GUARDS, RefusalMatcher.kind)
"""Every kind of judge, the most trusted first: a summary reports the first that has judged."""


def judges(names: Sequence[str], endpoint: str | None = None) -> list[Judge]:
    """The judges of these names, ready to judge.

    Args:
        names: `KIND` or `KIND:MODEL`, a hub id, a folder, or what `endpoint` calls its model.
        endpoint: base URL of an OpenAI-compatible server that the model judges are asked of.

    Raises:
        LayeralignError: there is no judge of a name, its model cannot be loaded, or one is named twice.
    """
    for name in names:
        kind, _, model = name.partition(":")
        if kind == HUMAN:
            raise LayeralignError(
                f"judge {name!r}: is people; give it what they said with layeralign label RUN --import FILE"
            )
        if kind not in KINDS:
            raise LayeralignError(f"judge {name!r}: expected one of {', '.join(KINDS)}")
        if model and kind in _ROWS:
            raise LayeralignError(f"judge {name!r}: {kind} takes no model")
        if names.count(name) > 1:
            raise LayeralignError(f"judge {name!r}: is named twice")
    return [_judge(*name.partition(":")[::2], endpoint) for name in names]


def _judge(kind: str, model: str, endpoint: str | None) -> Judge:
    if kind in _ROWS:
        return _ROWS[kind]()
    model = model or GUARDS[kind].model
    speaker = LocalSpeaker.load(model) if endpoint is None else Endpoint.of(endpoint, model)
    return GuardJudge(kind, model, speaker)


def trusted(names: Iterable[str]) -> list[str]:
    """Names of judges, the most trusted first: people, the kinds in their order, unknown ones."""
    known = {kind: at for at, kind in enumerate((HUMAN, *KINDS))}
    return sorted(names, key=lambda name: (known.get(name.partition(":")[0], len(known)), name))


def meaning(name: str) -> str:
    """What an `unsafe` of the judge of this name means, in a few words."""
    kind, _, model = name.partition(":")
    if kind == HUMAN:
        return "unsafe, by people"
    return _ROWS[kind].asr_means if kind in _ROWS else f"unsafe, by {model or name}"
