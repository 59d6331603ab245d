"""Checks of everything that a scan relies on, in a minute, with a grey picture (`layeralign doctor`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from inspect import signature
from itertools import zip_longest
from typing import Any, Literal

import torch
from PIL import Image

from layeralign._util.text import printable
from layeralign.cases.case import Case
from layeralign.decode import prompts, stream
from layeralign.decode.checks import check_template
from layeralign.decode.decoding import Decoding
from layeralign.errors import LayeralignError
from layeralign.vlm import finite
from layeralign.vlm.feature import Feature
from layeralign.vlm.text.ends import disagreement
from layeralign.vlm.vlm import Vlm

Result = Literal["pass", "fail", "not checked"]
_TOKENS = 8
"""Length of the compared answers, in tokens."""
_TEXTS = ("Hello.", "What is shown here, and why?", "Describe the picture.")
_TIE = 1e-3
"""Relative gap below which two logits count as tied, since rounding may swap them."""


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
        name: Name of the check.
        result: `pass`, `fail`, or `not checked` if the model lacks the information.
        found: Finding, in one sentence.
    """

    name: str
    result: Result
    found: str


@dataclass(frozen=True)
class Diagnosis:
    """Results of all checks of a model."""

    model: str
    family: str
    dtype: str
    checks: tuple[Check, ...]

    @property
    def fine(self) -> bool:
        """Whether no check failed."""
        return all(check.result != "fail" for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """The results as a JSON object."""
        return asdict(self) | {"fine": self.fine}


def diagnose(vlm: Vlm) -> Diagnosis:
    """Check everything that a scan of this model relies on; nothing is written."""
    grey = Image.new("RGB", (96, 64), (128, 128, 128))
    made = []
    for name, look in _CHECKS.items():
        try:
            result, found = look(vlm, grey)
        except LayeralignError as error:
            result, found = "fail", str(error)
        except Exception as error:  # a model that deviates from its family can raise anything
            result, found = "fail", f"fails ({printable(str(error), 200) or type(error).__name__})"
        made.append(Check(name, result, found))
    dtype = str(vlm.model.dtype).removeprefix("torch.")
    return Diagnosis(vlm.name, vlm.family, dtype, tuple(made))


Found = tuple[Result, str]


def _weights(vlm: Vlm, _: Image.Image) -> Found:
    weights = vlm.model.state_dict()
    finite.check_weights(weights, f"model {vlm.name}")
    return "pass", f"{sum(weight.numel() for weight in weights.values()):,} numbers, all finite"


def _template(vlm: Vlm, _: Image.Image) -> Found:
    for picture in (False, True):
        check_template(vlm, Decoding(), picture=picture)
    try:
        check_template(vlm, Decoding(system="Be kind."), picture=True)
        system = "system prompts are supported"
    except LayeralignError:
        system = "system prompts with a picture are not supported"
    day = "the date is used (--date)" if vlm.reads_date else "no date is used"
    return "pass", f"text and picture reach the model, in order; {system}; {day}"


def _begin(vlm: Vlm, grey: Image.Image) -> Found:
    names = vlm.tokenizer
    for feature in (None, *vlm.encode([grey], [vlm.exits.all[0]])[vlm.exits.all[0]]):
        ids = vlm.tokens(vlm.prompt(_TEXTS[0], picture=feature is not None), feature)
        if feature is not None and vlm.places_are_bos:
            at = ids.index(vlm.picture_token_id) + 1
            ids = [*ids[:at], *ids[at + len(feature.tokens) :]]
        if names.bos_token_id is not None and ids.count(names.bos_token_id) > 1:
            return (
                "fail",
                f"a prompt has {ids.count(names.bos_token_id)} {names.bos_token}; expected at most 1",
            )
        if ids[-1] in vlm.eos_tokens:
            return "fail", f"a prompt ends with {names.convert_ids_to_tokens(ids[-1])}, which ends an answer"
    count = ids.count(names.bos_token_id) if names.bos_token_id is not None else 0
    return "pass", f"{count} {names.bos_token}" if count else "no BOS, as defined by template and tokenizer"


def _ends(vlm: Vlm, _: Image.Image) -> Found:
    found = [f"{vlm.tokenizer.convert_ids_to_tokens(id)} ({', '.join(who)})" for id, who in vlm.ends.items()]
    note = disagreement(vlm, vlm.ends)
    return ("pass" if found else "fail"), "; ".join([*found, note] if note else found)


def _reasoning(vlm: Vlm, _: Image.Image) -> Found:
    known = [marks for marks in vlm.marks if marks.certain]
    if not known:
        return "pass", "template and tokenizer define no reasoning marks; the common ones are used"
    begun = " (the prompt opens it)" if known[0].begun else ""
    return "pass", f"removed between {known[0].opens} and {known[0].closes}{begun}"


def _context(vlm: Vlm, grey: Image.Image) -> Found:
    if vlm.context is None:
        return "not checked", "the config has no max_position_embeddings"
    text = vlm.picture_text(grey)
    picture = len(vlm.tokenizer(text, add_special_tokens=False)["input_ids"])
    if picture >= vlm.context:
        return "fail", f"a picture takes {picture} positions, but the context has only {vlm.context}"
    return "pass", f"{vlm.context} positions; this picture takes {picture}"


def _range(vlm: Vlm, grey: Image.Image) -> Found:
    """Check that features and logits of a grey picture are finite at every exit."""
    failed, largest = [], 0.0
    made = vlm.encode([grey], vlm.exits.all)
    for exit, (feature,) in made.items():
        line = torch.tensor([_prompt(vlm, _TEXTS[1], feature)], device=vlm.device)
        with torch.inference_mode():
            logits = vlm.logits(vlm.hidden(line, torch.ones_like(line, dtype=torch.bool), [feature])[:, -1:])
        fine = bool(logits.isfinite().all()) and bool(feature.tokens.isfinite().all())
        failed += [] if fine else [exit]
        largest = max(largest, float(feature.tokens.float().nan_to_num(posinf=0, neginf=0).abs().max()))
    dtype = vlm.model.dtype
    if failed:
        where = finite.listed(map(vlm.exits.name, failed))
        return "fail", f"not finite at {where}; {finite.advice([str(dtype).removeprefix('torch.')])}"
    most = torch.finfo(dtype).max
    return "pass", f"finite at {len(made)} exits; features up to {largest:.3g} of {most:.3g}"


def _features(vlm: Vlm, grey: Image.Image) -> Found:
    """Compare the features at the default exit with the model's own."""
    if not hasattr(vlm.model, "get_image_features"):
        return "not checked", "the model's class has no get_image_features"
    inputs, _ = vlm.prepare([grey])
    takes = signature(vlm.model.get_image_features).parameters.values()
    if any(
        one.name not in inputs
        for one in takes
        if one.default is one.empty and one.kind is not one.VAR_KEYWORD
    ):
        return "not checked", "the model's get_image_features also reads the prompt"
    (ours,) = vlm.encode([grey], [vlm.exits.default])[vlm.exits.default]
    with torch.inference_mode():
        output = vlm.model.get_image_features(**inputs, return_dict=True)
    theirs = torch.cat([part.flatten(end_dim=-2) for part in output.pooler_output])
    gap = float((ours.tokens.float() - theirs.float()).abs().max()) / float(theirs.float().abs().max())
    result: Result = "pass" if gap < 1e-2 else "fail"
    return result, f"largest difference from transformers' features: {gap:.1e} of the largest feature"


def _alone(vlm: Vlm, grey: Image.Image) -> Found:
    """Check that rows in one batch get the same answers as each row alone."""
    exits = sorted({vlm.exits.all[0], vlm.exits.default, vlm.exits.all[-1]})
    made = vlm.encode([grey], exits)
    rows = [(text, made[exit][0]) for exit in exits for text in _TEXTS] + [(_TEXTS[0], None)]
    features = [feature for _, feature in rows]
    ids = [_prompt(vlm, text, feature) for text, feature in rows]
    together = stream.respond(vlm, ids, features, Decoding(_TOKENS))
    differ = 0
    for line, feature, batched in zip(ids, features, together, strict=True):
        (alone,) = stream.respond(vlm, [line], [feature], Decoding(_TOKENS))
        differ += not _same(vlm, line, feature, batched.tokens, alone.tokens)
    return ("fail" if differ else "pass"), f"{len(rows) - differ} of {len(rows)} answers are the same alone"


def _generate(vlm: Vlm, grey: Image.Image) -> Found:
    """Compare answers at the default exit with transformers' `generate` on the processor's own inputs."""
    if vlm.asks_otherwise:
        return "not checked", "the model's own generate changes the prompt"
    same = 0
    (feature,) = vlm.encode([grey], [vlm.exits.default])[vlm.exits.default]
    for text in _TEXTS:
        line = _prompt(vlm, text, feature)
        theirs = vlm.own_inputs(vlm.prompt(text, picture=True), grey, line)
        if theirs is None:
            return "fail", "the model's processor gives other tokens for the same prompt"
        vlm.reset_rope()
        with torch.inference_mode():
            made = vlm.model.generate(
                **theirs, max_new_tokens=_TOKENS, do_sample=False, pad_token_id=vlm.pad_token,
                eos_token_id=sorted(vlm.eos_tokens),
            )  # fmt: skip
        wanted, _ = prompts.ended(vlm, made[0, len(line) :].tolist())
        (ours,) = stream.respond(vlm, [line], [feature], Decoding(_TOKENS))
        same += _same(vlm, line, feature, ours.tokens, wanted)
    result: Result = "pass" if same == len(_TEXTS) else "fail"
    return result, f"{same} of {len(_TEXTS)} answers equal those of transformers' generate"


def _adapter(vlm: Vlm, _: Image.Image) -> Found:
    if vlm.adapter is None:
        return "not checked", "no adapter is loaded"
    if vlm.other_base:
        return "fail", f"{vlm.adapter.name} was trained on {vlm.other_base}"
    return "pass", f"{vlm.adapter.name}: names this base model, or none"


def _prompt(vlm: Vlm, text: str, feature: Feature | None) -> list[int]:
    return prompts.prompt_tokens(vlm, Case("doctor", text, "benign"), feature)


def _same(
    vlm: Vlm, ids: Sequence[int], feature: Feature | None, one: Sequence[int], other: Sequence[int]
) -> bool:
    """Whether two answers are equal, or first differ at two tied logits."""
    if list(one) == list(other):
        return True
    at = next(n for n, pair in enumerate(zip_longest(one, other)) if pair[0] != pair[1])
    line = torch.tensor([[*ids, *other[:at]]], device=vlm.device)
    asked = torch.arange(line.shape[1], device=vlm.device)[None] < len(ids)
    with torch.inference_mode():
        best = vlm.logits(vlm.hidden(line, asked, [feature])[:, -1])[0].float().topk(2).values
    return float(best[0] - best[1]) <= _TIE * float(best[0].abs())


_CHECKS: dict[str, Callable[[Vlm, Image.Image], Found]] = {
    "weights": _weights,
    "chat template": _template,
    "BOS and EOS of a prompt": _begin,
    "ends of an answer": _ends,
    "reasoning": _reasoning,
    "context": _context,
    "range of the dtype, at every exit": _range,
    "features at the default exit": _features,
    "rows in one batch": _alone,
    "answers at the default exit": _generate,
    "adapter": _adapter,
}
