"""Creating judges from their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from layeralign.errors import LayeralignError
from layeralign.judges import coherence, toxicity
from layeralign.judges.coherence import CoherenceJudge
from layeralign.judges.guards.registry import GUARDS, GuardJudge
from layeralign.judges.judge import Judge, RowJudge
from layeralign.judges.kinds import LLM, PERSPECTIVE, REMOTE, REWARD, TOXICITY, check_names, kind_of
from layeralign.judges.models import local, reference
from layeralign.judges.models.local import LocalSpeaker
from layeralign.judges.models.remote import Endpoint
from layeralign.judges.oracle import Oracle, TopicJudge
from layeralign.judges.perspective import PerspectiveJudge
from layeralign.judges.refusal import RefusalMatcher
from layeralign.judges.reward import RewardJudge
from layeralign.judges.rubrics.rubric import PRESETS, Rubric, RubricJudge
from layeralign.judges.toxicity import Output, ToxicityJudge
from layeralign.judges.vqa import VqaJudge
from layeralign.rewards.reward import load_reward, look_at_reward

_RULES: dict[str, type[RowJudge]] = {one.kind: one for one in (Oracle, TopicJudge, RefusalMatcher, VqaJudge)}
DEFAULTS: Mapping[str, str] = {
    **{kind: guard.model for kind, guard in GUARDS.items()},
    ToxicityJudge.kind: toxicity.DEFAULT,
    CoherenceJudge.kind: coherence.DEFAULT,
}
"""Kind -> default model."""


@dataclass(frozen=True)
class Waiting:
    """A judge that was checked but is not yet loaded.

    Only one model is then in memory at a time, and a wrong name is found before the first judge starts.

    Attributes:
        kind: The kind of judge.
        name: See `Judge.name`.
        load: Loads the judge.
    """

    kind: str
    name: str
    load: Callable[[], Judge]


def judges(
    names: Sequence[str], endpoint: str | None = None, rubric: str | Path | None = None
) -> list[Waiting]:
    """Check the judges of these names; they are loaded later.

    Args:
        names: `KIND` or `KIND:MODEL`, where MODEL is a hub id, a folder, or the model's name on `endpoint`.
        endpoint: Base URL of the server that runs the guards, `llm` or Perspective; None to run guards
            locally. `llm:MODEL@URL` names the server in the judge.
        rubric: The rubric of `llm`: a preset or a YAML file.

    Raises:
        LayeralignError: A name is unknown or given twice, a model or key is missing, or these judges cannot
            use `endpoint`.
    """
    check_names(names)
    kinds = [kind_of(name) for name in names]
    if rubric is not None and LLM not in kinds:
        raise LayeralignError(f"rubric {rubric}: is for the judge llm:MODEL; expected that judge")
    if endpoint is not None:
        _check_endpoint(kinds)
    made = []
    for name, kind in zip(names, kinds, strict=True):
        model = name.partition(":")[2] or DEFAULTS.get(kind, "")
        if kind == LLM:
            made.append(_by_rubric(model, endpoint, rubric))
        else:
            made.append(Waiting(kind, f"{kind}:{model}" if model else kind, _waiting(kind, model, endpoint)))
    stored = [one.name for one in made]
    for given, name in zip(names, stored, strict=True):
        if stored.count(name) > 1:
            raise LayeralignError(f"judge {given!r}: another one is {name}, too; expected each judge once")
    return made


def _check_endpoint(kinds: Sequence[str]) -> None:
    asked = [kind for kind in kinds if kind in REMOTE]
    if not asked:
        raise LayeralignError(f"endpoint: {', '.join(kinds)} runs locally; remove the endpoint")
    if PERSPECTIVE in asked and len(set(asked)) > 1:
        raise LayeralignError(
            f"endpoint: {' and '.join(asked)} use different APIs; run one command per server"
        )


def _waiting(kind: str, model: str, endpoint: str | None) -> Callable[[], Judge]:
    """Check a judge cheaply, and return the function that loads it."""
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


def _by_rubric(given: str, endpoint: str | None, rubric: str | Path | None) -> Waiting:
    """The judge `llm:MODEL` or `llm:MODEL@URL`."""
    model, _, own = given.partition("@http")
    url = f"http{own}" if own else endpoint
    if not model or url is None:
        raise LayeralignError("judge 'llm': expected llm:MODEL@URL, or llm:MODEL and --endpoint URL")
    if rubric is None:
        raise LayeralignError(
            f"judge 'llm': has no rubric; expected --rubric FILE, or {' or '.join(PRESETS)}"
        )
    asked = RubricJudge(model, Rubric.read(rubric), Endpoint.of(url, model))
    return Waiting(LLM, asked.name, lambda: asked)


def _guard(kind: str, model: str, endpoint: str | None) -> Callable[[], Judge]:
    if endpoint is not None:
        server = Endpoint.of(endpoint, model)
        return lambda: GuardJudge(kind, model, server)
    local.look_at(model)
    guard = GUARDS[kind]
    return lambda: GuardJudge(kind, model, LocalSpeaker.load(model, chat=guard.has_template, sees=guard.sees))
