"""From names of judges to judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from layeralign.errors import LayeralignError
from layeralign.judges import coherence, local, reference, toxicity
from layeralign.judges.coherence import CoherenceJudge
from layeralign.judges.guard import GUARDS, GuardJudge
from layeralign.judges.judge import Judge, RowJudge
from layeralign.judges.kinds import HUMAN, KINDS, PERSPECTIVE, REMOTE, REWARD, RULES, TOXICITY, kind_of
from layeralign.judges.local import LocalSpeaker
from layeralign.judges.oracle import Oracle
from layeralign.judges.perspective import PerspectiveJudge
from layeralign.judges.refusal import RefusalMatcher
from layeralign.judges.remote import Endpoint
from layeralign.judges.reward import RewardJudge
from layeralign.judges.toxicity import Output, ToxicityJudge
from layeralign.judges.vqa import VqaJudge
from layeralign.rewards.reward import load_reward, look_at_reward

_RULES: dict[str, type[RowJudge]] = {one.kind: one for one in (Oracle, RefusalMatcher, VqaJudge)}
DEFAULTS: Mapping[str, str] = {
    **{kind: guard.model for kind, guard in GUARDS.items()},
    ToxicityJudge.kind: toxicity.DEFAULT,
    CoherenceJudge.kind: coherence.DEFAULT,
}
"""Kind -> the model that judges where none is named."""


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
    kinds = [kind_of(name) for name in names]
    for name, kind in zip(names, kinds, strict=True):
        if kind == HUMAN:
            raise LayeralignError(
                f"judge {name!r}: is people; give it what they said with layeralign label RUN --import FILE"
            )
        if kind not in KINDS:
            raise LayeralignError(f"judge {name!r}: expected one of {', '.join(KINDS)}")
        if ":" in name and kind in (*RULES, PERSPECTIVE):
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
    if PERSPECTIVE in asked and len(set(asked)) > 1:
        raise LayeralignError(
            f"endpoint: {' and '.join(asked)} are asked in other ways; use one command for each server"
        )


def _waiting(kind: str, model: str, endpoint: str | None) -> Callable[[], Judge]:
    """What loads a judge; all that can be known cheaply has been looked at."""
    if kind in _RULES:
        return _RULES[kind]
    if kind in GUARDS:
        return _guard(kind, model, endpoint)
    if kind == PERSPECTIVE:
        asked = PerspectiveJudge.of(endpoint)
        return lambda: asked
    if kind == REWARD:
        if not model:
            raise LayeralignError("judge 'reward': expected reward:MODEL, as for align --reward")
        look_at_reward(model)
        return lambda: RewardJudge(model, load_reward(model))
    if kind == TOXICITY:
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
