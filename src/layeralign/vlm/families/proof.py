"""Proof that a model with a tower or a family unknown to us is the same model when cut."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import LogitsProcessor

from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.vlm import tower
from layeralign.vlm.feature import Feature
from layeralign.vlm.vlm import Vlm


@torch.no_grad()
def prove(vlm: Vlm) -> None:
    """Check on a grey picture that the model behaves the same at its default exit as on its own.

    On its own, it gets all outputs of its processor. The check detects families that need more inputs
    than features, such as positions, token types or masks.
    """
    picture = Image.new("RGB", (96, 48), (128, 128, 128))
    try:
        inputs, texts = vlm.prepare([picture])
        run = partial(vlm.inner.get_image_features, **inputs, return_dict=True)
        own, order = _run(vlm, run)
        if order and order[-1] is not vlm.blocks:
            vlm.refuse("runs the last list of blocks in its vision tower before another one")
        vlm.one_tensor = isinstance(own.pooler_output, Tensor)
        vlm.tuples = _returns_tuples(vlm, run)
        (made,) = vlm.encode([picture], [vlm.exits.default])[vlm.exits.default]
        (wanted,) = vlm.features(own, inputs, texts, vlm.exits.default)
        prompt = vlm.prompt("Hello.", picture=True)
        ids = vlm.tokens(prompt, made)
        theirs = vlm.own_inputs(prompt, picture, ids)
        if theirs is None:
            vlm.refuse("builds a different prompt with its own processor")
        line = torch.tensor([ids], device=vlm.device)
        logits = vlm.logits(vlm.hidden(line, torch.ones_like(line, dtype=torch.bool), [made]))
        settings = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
        answer = vlm.generate([ids], [made], **settings)
        with vlm.own_positions():
            expected = vlm.model(**theirs).logits
            own_answer = vlm.model.generate(**theirs, **settings, pad_token_id=vlm.pad_token)[:, len(ids) :]
    except LayeralignError:
        raise
    except Exception as error:  # an unknown model can raise anything
        vlm.refuse(f"fails on a grey picture ({printable(str(error), 200) or type(error).__name__})")
    if not _near(made.tokens, wanted.tokens):
        vlm.refuse("gives different features when its encoder exits at its default exit")
    if not _near(logits, expected) or not torch.equal(answer, own_answer):
        vlm.refuse("answers differently when given only its own picture features")
    vlm.answers_alone = not _answers_together(vlm, made)


def _answers_together(vlm: Vlm, picture: Feature) -> bool:
    """Whether padded rows of a batch have the logits of each row alone, at the first tokens of an answer."""
    texts = ("Hello.", "What is shown here, and why?")
    lines = [vlm.tokens(vlm.prompt(text, picture=True), picture) for text in texts]

    def scores(rows: list[list[int]]) -> Tensor:
        told = _Told(lines[0][-1])
        vlm.generate(rows, [picture] * len(rows), max_new_tokens=3, do_sample=False, logits_processor=[told])
        return torch.stack(told.seen, 1)

    alone, together = torch.cat([scores([line]) for line in lines]), scores(lines)
    limit = 1e-4 if alone.dtype == torch.float32 else 1e-2
    return bool((alone - together).abs().max() <= limit * alone.abs().max())


class _Told(LogitsProcessor):
    """Keeps the logits, and has a token written in any case."""

    def __init__(self, token: int) -> None:
        self.token = token
        self.seen: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.seen.append(scores.clone())
        told = torch.full_like(scores, -torch.inf)
        told[:, self.token] = 0
        return told


def _run(vlm: Vlm, run: Callable[[], Any]) -> tuple[Any, list[nn.ModuleList]]:
    """What `run` gives, and the tower's lists of blocks, in the order in which each ran first."""
    order: list[nn.ModuleList] = []

    def ran(found: nn.ModuleList) -> Any:
        def hook(*_: Any) -> None:
            if all(found is not other for other in order):
                order.append(found)

        return hook

    lists = tower.lists_of_blocks(vlm.tower).values()
    handles = [found[0].register_forward_hook(ran(found)) for found in lists]
    try:
        return run(), order
    finally:
        for handle in handles:
            handle.remove()


def _returns_tuples(vlm: Vlm, run: Callable[[], Any]) -> bool:
    kinds: list[bool] = []
    handle = vlm.blocks[0].register_forward_hook(lambda *given: kinds.append(isinstance(given[2], tuple)))
    try:
        tower.states(run, vlm.blocks, [1])
    finally:
        handle.remove()
    return kinds[0]


def _near(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have equal shapes and differ by at most 1 % of the largest value."""
    if one.shape != other.shape:
        return False
    return bool((one - other).abs().max() <= 0.01 * other.abs().max())
