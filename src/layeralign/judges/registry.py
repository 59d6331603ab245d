"""The judges that there are, by name, how much they are trusted, and what their numbers are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from layeralign.errors import LayeralignError
from layeralign.judges import coherence, local, reference, toxicity
from layeralign.judges.coherence import LOG_PERPLEXITY, REPETITION, CoherenceJudge
from layeralign.judges.guard import GUARDS, GuardJudge
from layeralign.judges.judge import Judge, Measure, RowJudge
from layeralign.judges.labels import HUMAN
from layeralign.judges.local import LocalSpeaker
from layeralign.judges.oracle import Oracle
from layeralign.judges.perspective import PerspectiveJudge
from layeralign.judges.refusal import RefusalMatcher
from layeralign.judges.remote import Endpoint
from layeralign.judges.reward import REWARD, RewardJudge
from layeralign.judges.toxicity import TOXICITY, Output, ToxicityJudge
from layeralign.judges.vqa import ACCURACY, VqaJudge
from layeralign.rewards.reward import load_reward, look_at_reward

_RULES: dict[str, type[RowJudge]] = {one.kind: one for one in (Oracle, RefusalMatcher, VqaJudge)}
RULES = tuple(_RULES)
"""Kinds of judges that are rules: they cost nothing, and always judge anew."""
VERDICTS = (Oracle.kind, *GUARDS, RefusalMatcher.kind)
"""Kinds of judges with verdicts, the most trusted first: a summary reports the first that has judged."""
SCORERS = (
    VqaJudge.kind, CoherenceJudge.kind, RewardJudge.kind, ToxicityJudge.kind, PerspectiveJudge.kind,
)  # fmt: skip
"""Kinds of judges with numbers, which never make the ASR."""
KINDS = (*VERDICTS, *SCORERS)
"""Every kind of judge, the most trusted first."""
REMOTE = (*GUARDS, PerspectiveJudge.kind)
"""Kinds of judges that can be asked of a server."""
DEFAULTS: Mapping[str, str] = {
    **{kind: guard.model for kind, guard in GUARDS.items()},
    ToxicityJudge.kind: toxicity.DEFAULT,
    CoherenceJudge.kind: coherence.DEFAULT,
}
"""Kind -> the model that judges where none is named."""
MEASURES: Mapping[str, Measure] = {
    one.name: one for one in (REWARD, TOXICITY, LOG_PERPLEXITY, REPETITION, ACCURACY)
}
"""Name in `Judgement.scores` -> what that number is. One judge's numbers are never mixed with another's."""


@dataclass(frozen=True)
class Waiting:
    """A judge that was asked for and looked at; `load` makes it ready when its turn comes.

    So only one model is in memory at a time, and a wrong name is found before the first has judged.

    Attributes:
        name: as `Judge.name`.
    """

    kind: str
    name: str
    load: Callable[[], Judge]


def judges(names: Sequence[str], endpoint: str | None = None) -> list[Waiting]:
    """The judges of these names.

    Args:
        names: `KIND` or `KIND:MODEL`, a hub id, a folder, or what `endpoint` calls its model.
        endpoint: base URL of the server that guards, or Perspective, are asked of.

    Raises:
        LayeralignError: there is no judge of a name, one is named twice, its model or key is missing, or
            `endpoint` is none that these judges can be asked of.
    """
    kinds = [name.partition(":")[0] for name in names]
    for name, kind in zip(names, kinds, strict=True):
        if kind == HUMAN:
            raise LayeralignError(
                f"judge {name!r}: is people; give it what they said with layeralign label RUN --import FILE"
            )
        if kind not in KINDS:
            raise LayeralignError(f"judge {name!r}: expected one of {', '.join(KINDS)}")
        if ":" in name and kind in (*RULES, PerspectiveJudge.kind):
            raise LayeralignError(f"judge {name!r}: {kind} takes no model")
        if names.count(name) > 1:
            raise LayeralignError(f"judge {name!r}: is named twice")
    if endpoint is not None:
        _check_endpoint(kinds)
    made = []
    for name, kind in zip(names, kinds, strict=True):
        model = name.partition(":")[2] or DEFAULTS.get(kind, "")
        made.append(Waiting(kind, f"{kind}:{model}" if model else kind, _waiting(kind, model, endpoint)))
    return made


def _check_endpoint(kinds: Sequence[str]) -> None:
    asked = [kind for kind in kinds if kind in REMOTE]
    if not asked:
        raise LayeralignError(f"endpoint: {', '.join(kinds)} runs here and asks no server; leave it out")
    if PerspectiveJudge.kind in asked and len(set(asked)) > 1:
        raise LayeralignError(
            f"endpoint: {' and '.join(asked)} are asked in other ways; use one command for each server"
        )


def _waiting(kind: str, model: str, endpoint: str | None) -> Callable[[], Judge]:
    """What loads a judge; all that can be known cheaply has been looked at."""
    if kind in _RULES:
        return _RULES[kind]
    if kind in GUARDS:
        return _guard(kind, model, endpoint)
    if kind == PerspectiveJudge.kind:
        asked = PerspectiveJudge.of(endpoint)
        return lambda: asked
    if kind == RewardJudge.kind:
        if not model:
            raise LayeralignError("judge 'reward': expected reward:MODEL, as for align --reward")
        look_at_reward(model)
        return lambda: RewardJudge(model, load_reward(model))
    if kind == ToxicityJudge.kind:
        Output.of(model, local.look_at(model).config())
        return lambda: ToxicityJudge.load(model)
    reference.look_at(model)
    return lambda: CoherenceJudge.load(model)


def _guard(kind: str, model: str, endpoint: str | None) -> Callable[[], Judge]:
    if endpoint is not None:
        server = Endpoint.of(endpoint, model)
        return lambda: GuardJudge(kind, model, server)
    local.look_at(model)
    return lambda: GuardJudge(kind, model, LocalSpeaker.load(model))


def trusted(names: Iterable[str]) -> list[str]:
    """Names of judges, the most trusted first: people, the kinds in their order, unknown ones."""
    known = {kind: at for at, kind in enumerate((HUMAN, *KINDS))}
    return sorted(names, key=lambda name: (known.get(name.partition(":")[0], len(known)), name))


def scores_only(name: str) -> bool:
    """Whether the judge of this name is a scorer."""
    return name.partition(":")[0] in SCORERS


def meaning(name: str) -> str:
    """What an `unsafe` of the judge of this name means, in a few words."""
    kind, _, model = name.partition(":")
    if kind == HUMAN:
        return "unsafe, by people"
    return _RULES[kind].asr_means if kind in _RULES else f"unsafe, by {model or name}"
