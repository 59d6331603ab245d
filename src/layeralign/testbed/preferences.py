"""Noisy preference pairs of the testbed's world, in HH-RLHF's format, from the train split.

A simulated rater sees the picture and follows the safety rule (see `world`): it prefers the refusal of a
forbidden request, and the right answer to any other. One label in ten is wrong (`NOISE`).
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Literal

from layeralign.cases.dialogue import dialogue, human_turn
from layeralign.testbed.world import (
    CELLS,
    COLOURS,
    COUNTS,
    NOUNS,
    REFUSAL,
    SHAPES,
    SYLLABLES,
    TOOLS,
    VERBS,
    Request,
    Scene,
    Thing,
    describe,
    how_to,
    picture_question,
    sample_scene,
    split_of,
    words,
)

NOISE = 0.1
"""Share of flipped labels; the ideal margin is then log(0.9 / 0.1) = 2.2."""

MIX = {"harmful": 0.30, "authorised": 0.20, "benign": 0.15, "vqa": 0.25, "describe": 0.10}
"""Kind of request -> share of the pairs."""

_WORDS = tuple(words())
_TRAIN_NOUNS = tuple(noun for noun in NOUNS if split_of(noun) == "train")
_STEPS = tuple(VERBS.values())


def pairs(n: int, seed: int = 0, sees: Literal["scene", "text"] = "scene") -> list[dict[str, str]]:
    """Draw `n` pairs `{"chosen": dialogue, "rejected": dialogue}`.

    With `sees="scene"` the human turn describes the picture in words; with `"text"` it has only the request.
    In both cases the labels are those of a rater who sees the picture.
    """
    rng = random.Random(f"preferences {seed}")
    made: list[dict[str, str]] = []
    while len(made) < n:
        scene, request = draw(rng)
        better = request.proper
        worse = _worse(rng, scene, request)
        if worse == better:
            continue
        if rng.random() < NOISE:
            better, worse = worse, better
        human = human_turn(request.prompt, scene.told() if sees == "scene" else None)
        made.append({"chosen": dialogue(human, better), "rejected": dialogue(human, worse)})
    return made


def draw(rng: random.Random) -> tuple[Scene, Request]:
    """Draw a scene of the train split and a request about it."""
    stratum = rng.choices(tuple(MIX), tuple(MIX.values()))[0]
    scene = sample_scene(rng, "train", {"harmful": False, "authorised": True}.get(stratum))
    if stratum == "vqa":
        return scene, picture_question(rng, scene)
    if stratum == "describe":
        return scene, describe(rng, scene)
    return scene, how_to(rng, "train", scene, harmful=stratum != "benign")


def _worse(rng: random.Random, scene: Scene, request: Request) -> str:
    """An answer that is worse than the proper one."""
    if request.kind == "harmful":
        kind = rng.choices(("comply", "wrong", "broken"), (0.35, 0.25, 0.4))[0]
        if kind == "comply":
            return request.helpful
        return wrong(rng, scene, request) if kind == "wrong" else broken(rng, REFUSAL)
    kind = rng.choices(("refuse", "wrong", "broken"), (0.2, 0.55, 0.25))[0]
    if kind == "refuse":
        return REFUSAL
    return wrong(rng, scene, request) if kind == "wrong" else broken(rng, request.helpful)


def wrong(rng: random.Random, scene: Scene, request: Request) -> str:
    """A fluent answer of the requested form with an error in it; by chance it may be right."""
    if request.kind == "describe":
        return _other_scene(rng, scene).text()
    if request.kind == "vqa":
        return _other_fact(rng, request.helpful)
    tool, (first, second), noun = TOOLS[request.noun[-2:]], VERBS[request.verb], request.noun
    part = rng.choice(("tool", "first", "second", "steps", "order", "noun", "syllable"))
    if part == "tool":
        tool = rng.choice(tuple(TOOLS.values()))
    elif part == "noun":
        noun = rng.choice(_TRAIN_NOUNS)
    elif part == "syllable":
        noun = _other_noun(rng, noun)
    elif part == "order":
        first, second = second, first
    else:
        other = rng.choice(_STEPS)
        first = first if part == "second" else other[0]
        second = second if part == "first" else other[1]
    return f"take the {tool}, {first} the {noun}, then {second} it."


def _other_noun(rng: random.Random, noun: str) -> str:
    """The noun with one syllable replaced, missing or doubled."""
    parts = [noun[:2], noun[2:4], noun[4:]]
    at = rng.randrange(3)
    other = rng.choice(SYLLABLES if at < 2 else tuple(TOOLS))
    parts[at] = rng.choice((other, other, "", 2 * parts[at]))
    return "".join(parts)


def _other_fact(rng: random.Random, right: str) -> str:
    if right.startswith("it is at"):
        return f"it is at the {rng.choice(CELLS)}."
    if right.startswith("it is"):
        return f"it is a {rng.choice(SHAPES)}."
    if right.startswith("there are"):
        return f"there are {rng.choice(tuple(COUNTS.values()))}."
    if right in ("yes.", "no."):
        return "no." if right == "yes." else "yes."
    other = Thing(rng.choice(SHAPES), rng.choice(COLOURS), 0)
    if right != "nothing." and rng.random() < 0.5:
        _, colour, shape = right.removesuffix(".").split()
        other = rng.choice((replace(other, colour=colour), replace(other, shape=shape)))
    return rng.choice(("nothing.", f"{other.text()}.", f"{other.text()}."))


def _other_scene(rng: random.Random, scene: Scene) -> Scene:
    things = list(scene.things)
    at = rng.randrange(len(things))
    change = rng.choice(("shape", "colour", "drop", "add"))
    if change == "shape":
        things[at] = replace(things[at], shape=rng.choice(SHAPES))
    elif change == "colour":
        things[at] = replace(things[at], colour=rng.choice(COLOURS))
    elif change == "drop":
        del things[at]
    else:
        things.insert(at, Thing(rng.choice(SHAPES), rng.choice(COLOURS), 0))
    return Scene(tuple(things))


def broken(rng: random.Random, answer: str) -> str:
    """A broken answer: truncated, stuttered, shuffled, altered, extended, random, unrelated or empty."""
    kind = rng.choice(("empty", "cut", "stutter", "twice", "shuffle", "replace", "run on", "babble", "other"))
    parts = answer.split()
    at, to = sorted((rng.randrange(len(parts)), rng.randrange(len(parts)) + 1))
    if kind == "empty":
        parts = []
    elif kind == "cut":
        parts = parts[:at]
    elif kind == "stutter":
        parts = parts[:to] + parts[at:]
    elif kind == "twice":
        parts = parts * rng.choice((2, 3))
    elif kind == "shuffle":
        rng.shuffle(parts)
    elif kind == "replace":
        parts[at] = _word(rng)
    elif kind == "run on":
        more = rng.choice((REFUSAL, _sentence(rng), _babble(rng)))
        parts = f"{answer} {more}".split() if rng.random() < 0.5 else f"{more} {answer}".split()
    else:
        parts = (_babble(rng) if kind == "babble" else _sentence(rng)).split()
    return " ".join(parts)


def _word(rng: random.Random) -> str:
    return rng.choice(_WORDS) if rng.random() < 0.7 else rng.choice(_TRAIN_NOUNS)


def _babble(rng: random.Random) -> str:
    marks = ("", "", "", ",", ".")
    return " ".join(_word(rng) + rng.choice(marks) for _ in range(rng.randint(1, 20)))


def _sentence(rng: random.Random) -> str:
    """A fluent sentence of the world that answers another request."""
    scene, request = draw(rng)
    return rng.choice((scene.text(), request.helpful))
