"""Rewards: they rank answers to a case for the training.

A reward is a learned model or any Python function. It must never be the judge of the reported results.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from layeralign._util.files import expanded
from layeralign._util.text import printable
from layeralign.cases.case import Case
from layeralign.cases.dialogue import dialogue, human_turn
from layeralign.errors import LayeralignError
from layeralign.rewards.classifier import Classifier, Row
from layeralign.vlm import checkpoint as checkpoints
from layeralign.vlm.limits import class_of
from layeralign.vlm.load import own_device, pretrained
from layeralign.vlm.load import tokenizer as load_tokenizer
from layeralign.vlm.text import template

SEES = ("text", "scene")
"""Values of `layeralign_sees` in config.json: the request alone, or also the picture described in words."""
_TESTBED = Path(__file__).parent.parent / "testbed" / "reward"
_ENTRY_POINT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_BATCH = 64
"""Answers scored in one pass."""


class Reward(Protocol):
    """Scores answers."""

    @property
    def name(self) -> str:
        """The name given to `load_reward`."""

    def record(self) -> dict[str, Any]:
        """The reward's identity as JSON: its name and the hashes of its files."""

    def score(self, cases: Sequence[Case], answers: Sequence[str]) -> Tensor:
        """Return one number per answer, float32 [n] on the CPU; higher is better.

        Each answer is to the case of the same index. Only differences between answers to one case have a
        meaning.

        Raises:
            LayeralignError: a case or an answer cannot be scored.
        """


def look_at_reward(name: str) -> None:
    """Check that a reward exists, without loading or downloading weights.

    Raises:
        LayeralignError: as in `load_reward`.
    """
    if _is_function(name):
        _function(name)
    else:
        found = _find(name, weights=name == "testbed" or expanded(name).is_dir())
        _sees(name, found.config())


def load_reward(name: str, *, device: str | None = None) -> RewardModel | RewardFunction:
    """Load a reward.

    Args:
        name: the reward, in one of three forms. `testbed` is the bundled reward model. A folder or hub id is
            a transformers sequence classifier with one output, in safetensors. `package.module:function` is a
            Python function that takes cases and answers and returns one finite float per answer.
        device: a torch device for a model; by default the first GPU, else the CPU.

    Raises:
        LayeralignError: the reward does not exist, is not safe to load, or is not a reward.
    """
    if _is_function(name):
        return _function(name)
    return _model(name, _find(name), device)


def _is_function(name: str) -> bool:
    return _ENTRY_POINT.fullmatch(name) is not None and not Path(name).exists()


def _find(name: str, *, weights: bool = True) -> checkpoints.Checkpoint:
    try:
        return checkpoints.find(_TESTBED if name == "testbed" else name, weights=weights)
    except LayeralignError as error:
        raise LayeralignError(f"reward: {error}") from error


@dataclass(frozen=True)
class RewardModel:
    """A sequence classifier with one output, read in HH-RLHF's form or its own chat template.

    Attributes:
        name: the name given to `load_reward`.
        classifier: the model and its tokenizer.
        sees: one of `SEES`.
        checkpoint: the model's files.
    """

    name: str
    classifier: Classifier
    sees: str
    checkpoint: checkpoints.Checkpoint

    def record(self) -> dict[str, Any]:
        """See `Reward.record`."""
        hashes = self.checkpoint.hashes
        return {"name": self.name, "revision": self.checkpoint.revision, "sees": self.sees, "files": hashes}

    def score(self, cases: Sequence[Case], answers: Sequence[str]) -> Tensor:
        """See `Reward.score`; needs `facts["scene"]` of every case if the model reads scenes."""
        for case in cases:
            if not self.can_score(case):
                raise LayeralignError(
                    f"reward {self.name}: needs the picture described in words, and case {case.id!r} has no "
                    "fact 'scene'; use a reward that reads the request alone (layeralign_sees: text)"
                )
        return _checked(self.name, self.numbers(cases, answers), cases)

    def can_score(self, case: Case) -> bool:
        """Return whether the case has all of the model's input: a scene in words, if the model needs one."""
        return self.sees == "text" or isinstance(case.facts.get("scene"), str)

    @torch.no_grad()
    def numbers(self, cases: Sequence[Case], answers: Sequence[str]) -> list[float]:
        """Return the numbers of `score` without checks: they may be infinite or nan."""
        scenes = [case.facts["scene"] if self.sees == "scene" else None for case in cases]
        humans = [human_turn(case.prompt, scene) for case, scene in zip(cases, scenes, strict=True)]
        rows = self._rows(humans, answers) if humans else []
        found: list[float] = []
        for at in range(0, len(rows), _BATCH):
            found += self.classifier.scores(rows[at : at + _BATCH]).tolist()
        return found

    def _rows(self, humans: Sequence[str], answers: Sequence[str]) -> list[Row]:
        tokenizer = self.classifier.tokenizer
        both = list(zip(humans, (answer.strip() for answer in answers), strict=True))
        if getattr(tokenizer, "chat_template", None):
            tokens = template.control_tokens(tokenizer, template.source(tokenizer))
            plain = ([template.marked(text, tokens) for text in pair] for pair in both)
            texts = [_templated(tokenizer, self.name, human, answer) for human, answer in plain]
            return self.classifier.rows(texts, special=False)
        if self.classifier.is_encoder:
            return self.classifier.pair_rows(*map(list, zip(*both, strict=True)))
        return self.classifier.rows([dialogue(human, answer) for human, answer in both])


def _templated(names: Any, name: str, human: str, answer: str) -> str:
    """Return a request and its answer in the reward's own chat template."""
    turns = [{"role": "user", "content": human}, {"role": "assistant", "content": answer}]
    return template.render(names, f"reward {name}", turns, template.JUDGE_DATE, tokenize=False)


@dataclass(frozen=True)
class RewardFunction:
    """A function of the user, called with cases and answers."""

    name: str
    function: Callable[[Sequence[Case], Sequence[str]], Any]
    sha256: str | None
    """Hash of the module's file; None without a file."""

    def record(self) -> dict[str, Any]:
        """See `Reward.record`."""
        return {"name": self.name, "files": {self.name.partition(":")[0]: self.sha256}}

    def score(self, cases: Sequence[Case], answers: Sequence[str]) -> Tensor:
        """See `Reward.score`."""
        return _checked(self.name, self.numbers(cases, answers), cases)

    def can_score(self, case: Case) -> bool:
        """Return True for every case: only the function itself can decide."""
        return True

    def numbers(self, cases: Sequence[Case], answers: Sequence[str]) -> list[float]:
        """Return the numbers of `score` without checks for infinity or nan."""
        try:
            found = self.function(cases, answers)
        except LayeralignError:
            raise
        except Exception as error:  # of any kind, from the user's function
            reason = f"{type(error).__name__}: {printable(str(error), 200)}"
            raise LayeralignError(f"reward {self.name}: fails on {len(cases)} answers ({reason})") from error
        try:
            numbers = [float(number) for number in found]
        except (TypeError, ValueError) as error:
            raise LayeralignError(
                f"reward {self.name}: returned {printable(repr(found), 60)}; expected {len(cases)} floats"
            ) from error
        if len(numbers) != len(cases):
            raise LayeralignError(
                f"reward {self.name}: returned {len(numbers)} scores for {len(cases)} answers"
            )
        return numbers


def _checked(name: str, numbers: Sequence[float], cases: Sequence[Case]) -> Tensor:
    for number, case in zip(numbers, cases, strict=True):
        if not math.isfinite(number):
            raise LayeralignError(
                f"reward {name}: scored an answer to case {case.id!r} {number}; expected a finite number"
            )
    return torch.tensor(numbers, dtype=torch.float32)


def _function(name: str) -> RewardFunction:
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # at the end, so that it hides no installed module
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # of any kind, from the import of the user's module
        reason = f"{type(error).__name__}: {printable(str(error), 200)}"
        raise LayeralignError(
            f"reward {name}: module {module_name} cannot be imported ({reason}); expected a module "
            "in this folder, on PYTHONPATH or installed"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise LayeralignError(f"reward {name}: module {module_name} has no function {function_name}")
    file = getattr(module, "__file__", None)
    sha256 = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None
    return RewardFunction(name, function, sha256)


def _sees(name: str, config: Mapping[str, Any]) -> str:
    """Return a reward model's input, one of `SEES`, from its config.json."""
    kind = class_of(config)
    if not kind.endswith("ForSequenceClassification"):
        raise LayeralignError(
            f"reward {name}: config.json names the class {printable(kind, 60)}; expected a "
            "*ForSequenceClassification with one output (layeralign reward train makes one)"
        )
    sees = config.get("layeralign_sees", "text")
    if sees not in SEES:
        raise LayeralignError(
            f"reward {name}: config.json has layeralign_sees {sees!r}; expected text or scene"
        )
    return str(sees)


def _model(name: str, found: checkpoints.Checkpoint, device: str | None) -> RewardModel:
    sees = _sees(name, found.config())
    found.hashes  # noqa: B018 - hash the files before they are loaded
    tokenizer = load_tokenizer(found, f"reward {name}")
    if getattr(tokenizer, "chat_template", None):
        made = _templated(tokenizer, name, template.SENTINEL, template.SENTINEL)
        template.check_turns(made, 2, f"reward {name}")
    model = pretrained(AutoModelForSequenceClassification, found, f"reward {name}", dtype=torch.float32)
    if model.config.num_labels != 1:
        raise LayeralignError(f"reward {name}: has {model.config.num_labels} outputs; expected one")
    place = torch.device(device) if device else own_device()
    return RewardModel(name, Classifier(model.to(place).eval(), tokenizer), sees, found)
