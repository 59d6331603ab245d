"""Pytest suite that checks that the exits of a family are exact.

```python
from layeralign.testing import FamilySuite

class TestMine(FamilySuite):
    @pytest.fixture(scope="class")
    def vlm(self, tmp_path_factory):
        return load(save_a_tiny_random_model(tmp_path_factory.mktemp("mine")))
```

The model must be tiny, random and of the real class. Parameters that the class initialises with zeros, such
as gates, norms or projectors, must be set, since equality would be trivial otherwise.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Cache

from layeralign.cases.case import Case, Kind
from layeralign.decode.decoding import Decoding
from layeralign.decode.prompts import ended
from layeralign.decode.stream import respond
from layeralign.training.settings import AlignSettings
from layeralign.training.train import train
from layeralign.vlm.feature import Feature
from layeralign.vlm.load import load
from layeralign.vlm.vlm import Vlm

TEXTS = (
    "Hello.",
    "What is shown here, and why?",
    "Count the shapes.",
    "Name one colour of it.",
    "Describe it.",
)
TIE = 1e-4
"""Gap below which two logits count as tied, since rounding may swap them."""

_SHORT = ("Hi.", "Go!", "What?", "A")
_SIZES = ((32, 32), (20, 60), (300, 200), (8, 8), (1200, 900))


def noise(height: int, width: int) -> Image.Image:
    """A deterministic noise picture of this size in pixels."""
    rng = np.random.default_rng(height * 10_000 + width)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


@contextmanager
def counted(blocks: nn.ModuleList) -> Iterator[list[int]]:
    """Context that lists the blocks (from 1) whose first layer with weights ran, in order."""
    ran: list[int] = []
    handles = []
    for number, block in enumerate(blocks, 1):
        first = next(m for m in block.modules() if not list(m.children()) and list(m.parameters()))
        handles.append(first.register_forward_hook(lambda *_, number=number: ran.append(number)))
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


class FamilySuite:
    """Test suite of a family; needs a fixture `vlm`, and `reference` if exits are not plain cuts."""

    @pytest.fixture(scope="class")
    def pictures(self) -> list[Image.Image]:
        """Square, wide, tall, tiny and large."""
        return [noise(*size) for size in _SIZES]

    def their_inputs(self, vlm: Vlm, text: str, picture: Image.Image | None) -> dict[str, Any]:
        """Inputs for one prompt from the family's own processor and chat template, without layeralign."""
        content: list[dict[str, Any]] = [{"type": "image", "image": picture}] if picture else []
        turn = {"role": "user", "content": [*content, {"type": "text", "text": text}]}
        settings: dict[str, Any] = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
        return dict(vlm.processor.apply_chat_template([turn], add_generation_prompt=True, **settings))

    def reference(self, vlm: Vlm, picture: Image.Image, exit: int) -> Tensor:
        """Features from a tower that has only `exit` blocks, [picture tokens, text width].

        For a family that reads `vision_feature_layer`, that layer of the full tower is read instead.
        """
        inputs, _ = vlm.prepare([picture])
        model = copy.deepcopy(vlm.model)
        if "vision_feature_layer" in inspect.signature(model.get_image_features).parameters:
            if exit == 0:
                pytest.skip("transformers cannot read layer 0; override `reference`")
            inputs |= {"vision_feature_layer": exit}
        else:
            del type(vlm)(model, vlm.processor, vlm.checkpoint, vlm.reading).blocks[exit:]
        with torch.no_grad():
            output = model.get_image_features(**inputs, return_dict=True)
        return torch.cat([part.flatten(end_dim=-2) for part in output.pooler_output])

    # --- exact at the default exit

    def test_default_exit_features(self, vlm: Vlm, pictures: list[Image.Image]) -> None:
        """Equal to transformers' own features of each picture."""
        exit = vlm.exits.default
        for picture, made in zip(pictures, vlm.encode(pictures, [exit])[exit], strict=True):
            self.equal(made.tokens, self.own_features(vlm, picture))

    def own_features(self, vlm: Vlm, picture: Image.Image) -> Tensor:
        """Transformers' own features of a picture, [picture tokens, text width]."""
        inputs, _ = vlm.prepare([picture])
        with torch.no_grad():
            output = vlm.model.get_image_features(**inputs, return_dict=True)
        return torch.cat([part.flatten(end_dim=-2) for part in output.pooler_output])

    def test_default_exit_tokens_and_logits(self, vlm: Vlm, pictures: list[Image.Image]) -> None:
        """Prompt and logits equal those of the model's own forward, with and without a picture."""
        made = vlm.encode(pictures, [vlm.exits.default])[vlm.exits.default]
        rows: list[tuple[Image.Image | None, Feature | None]] = [
            *zip(pictures, made, strict=True),
            (None, None),
        ]
        for picture, feature in rows:
            theirs = self.their_inputs(vlm, TEXTS[0], picture)
            ids = vlm.tokens(vlm.prompt(TEXTS[0], picture=picture is not None), feature)
            assert ids == theirs["input_ids"][0].tolist()
            with torch.no_grad():
                wanted = vlm.model(**theirs).logits[0]
            self.equal(self.logits(vlm, ids, feature), wanted, 1e-4)

    def logits(self, vlm: Vlm, ids: list[int], feature: Feature | None) -> Tensor:
        """Logits of a prompt by the code path of training, [tokens, vocabulary]."""
        line = torch.tensor([ids])
        with torch.no_grad():
            return vlm.logits(vlm.hidden(line, torch.ones_like(line, dtype=torch.bool), [feature]))[0]

    def test_default_exit_greedy_answers(self, vlm: Vlm, pictures: list[Image.Image]) -> None:
        """Answers equal those of the model's own `generate`, except after tied logits."""
        made = vlm.encode(pictures, [vlm.exits.default])[vlm.exits.default]
        ids = [vlm.tokens(vlm.prompt(TEXTS[1], picture=True), feature) for feature in made]
        ours = respond(vlm, ids, made, Decoding(8))
        for picture, line, feature, answer in zip(pictures, ids, made, ours, strict=True):
            theirs = self.their_inputs(vlm, TEXTS[1], picture)
            with torch.no_grad():
                wanted = vlm.model.generate(
                    **theirs, max_new_tokens=8, do_sample=False, pad_token_id=vlm.pad_token
                )
            self.same(vlm, line, feature, answer.tokens, wanted[0, theirs["input_ids"].shape[1] :].tolist())
        assert len({tuple(answer.tokens) for answer in ours}) > 1, "all pictures give the same answer"

    def same(
        self, vlm: Vlm, ids: list[int], feature: Feature | None, ours: list[int], theirs: list[int]
    ) -> None:
        """Assert that two answers are equal up to their end, or first differ at two tied logits."""
        theirs, _ = ended(vlm, theirs)
        if ours == theirs:
            return
        at = next(n for n, pair in enumerate(zip_longest(ours, theirs)) if pair[0] != pair[1])
        line = torch.tensor([[*ids, *theirs[:at]]])
        with torch.no_grad():
            hidden = vlm.hidden(line, torch.arange(line.shape[1])[None] < len(ids), [feature])
            best = vlm.logits(hidden)[0, -1].topk(2).values
        gap = float(best[0] - best[1])
        assert gap < TIE, f"token {at} of {ours} differs from {theirs}, and the best logits differ by {gap}"
        warnings.warn(f"{vlm.family}: a tie at token {at} (gap {gap:.1e})", stacklevel=2)

    # --- exact at every exit

    def test_every_exit(self, vlm: Vlm, pictures: list[Image.Image]) -> None:
        """Features equal `reference` at every exit, and no two exits have equal logits."""
        made = vlm.encode(pictures, vlm.exits.all)
        assert list(made) == list(vlm.exits.all)
        prompt = vlm.prompt(TEXTS[0], picture=True)
        logits = [self.logits(vlm, vlm.tokens(prompt, row[0]), row[0])[-1] for row in made.values()]
        for one in range(len(logits)):
            for other in range(one):
                assert (logits[one] - logits[other]).abs().max() > TIE, (one, other)
        for exit in reversed(made):
            for number in (0, 2):
                self.equal(made[exit][number].tokens, self.reference(vlm, pictures[number], exit), 2e-5)

    def test_one_exit_alone_is_the_same(self, vlm: Vlm, pictures: list[Image.Image]) -> None:
        """An exit does not depend on other requested exits, nor a picture on others in its batch."""
        together = vlm.encode(pictures, vlm.exits.all)
        for exit in (vlm.exits.all[1], vlm.exits.default):
            (alone,) = vlm.encode([pictures[1]], [exit])[exit]
            self.equal(alone.tokens, together[exit][1].tokens)
            for name, extra in alone.extras.items():
                other = together[exit][1].extras[name]
                if extra.is_floating_point():
                    self.equal(extra, other)
                else:  # such as a number of tiles, which may be zero
                    assert torch.equal(extra, other)

    def test_blocks_past_the_deepest_exit_do_not_run(self, vlm: Vlm, pictures: list[Image.Image]) -> None:
        """Blocks up to the deepest exit run as often as in the model; others do not run."""
        layers, runs = vlm.exits.layers, self.runs(vlm, pictures[0])
        for exits in ([0], [1], [0, 2], [layers]):
            with counted(vlm.blocks) as ran:
                vlm.encode(pictures[:1], exits)
            assert ran == list(range(1, max(exits) + 1)) * runs

    def runs(self, vlm: Vlm, picture: Image.Image) -> int:
        """How often the model itself runs its tower for a picture."""
        return 1

    def test_nothing_is_left_on_the_model(self, vlm: Vlm, pictures: list[Image.Image]) -> None:
        """No hook, attribute or changed weight remains, also after an error in or after a block."""
        vlm.generate([vlm.tokens(vlm.prompt("Hi.", picture=False), None)], [None], max_new_tokens=1)
        vlm.encode(pictures[:1], [1])  # transformers itself leaves hooks at the first call
        before = self.traces(vlm)
        vlm.encode(pictures[:1], vlm.exits.all)
        feature = vlm.encode(pictures[:1], [1])[1][0]
        ids = vlm.tokens(vlm.prompt("Hi.", picture=True), feature)
        vlm.generate([ids], [feature], max_new_tokens=2)
        self.logits(vlm, ids, feature)
        assert self.traces(vlm) == before

        class Middle(Exception):
            pass

        def fail(*_: Any) -> None:
            raise Middle

        for module in (vlm.blocks[1], self.behind(vlm)):
            handle = module.register_forward_pre_hook(fail)
            with pytest.raises(Middle):
                vlm.encode(pictures[:1], [2])
            handle.remove()
        assert self.traces(vlm) == before

    def behind(self, vlm: Vlm) -> nn.Module:
        """A module that runs after the blocks."""
        names = ("multi_modal_projector", "connector")
        for name in names:
            if hasattr(vlm.inner, name):
                found: nn.Module = getattr(vlm.inner, name)
                return found
        merger: nn.Module = vlm.tower.get_submodule("merger")
        return merger

    def traces(self, vlm: Vlm) -> dict[str, Any]:
        """A model's weights, attributes and hooks."""
        found: dict[str, Any] = {
            name: float(p.detach().double().sum()) for name, p in vlm.model.named_parameters()
        }
        for name, module in vlm.model.named_modules():
            own = {k: v for k, v in vars(module).items() if not k.startswith("_")}
            found[f"{name} attributes"] = {
                k: v if isinstance(v, (int, str, list)) else id(v) for k, v in own.items()
            }
            found[f"{name} hooks"] = (*module._forward_hooks, *module._forward_pre_hooks)
        return found

    # --- batches

    def test_a_mixed_batch_equals_each_row_alone(self, vlm: Vlm, pictures: list[Image.Image]) -> None:
        """Rows with different exits, pictures, texts and lengths, and one without a picture."""
        exits = (0, 2, vlm.exits.default, vlm.exits.all[-1])
        features: list[Feature | None] = [vlm.encode([pictures[i]], [e])[e][0] for i, e in enumerate(exits)]
        features.append(None)
        ids = [
            vlm.tokens(vlm.prompt(text, picture=feature is not None), feature)
            for text, feature in zip(TEXTS, features, strict=True)
        ]
        self.equal_alone(vlm, ids, features, 3)
        width = max(map(len, ids))
        padded = torch.tensor([[*line, *[vlm.pad_token] * (width - len(line))] for line in ids])
        prompt = torch.tensor([[True] * len(line) + [False] * (width - len(line)) for line in ids])
        with torch.no_grad():
            trained = vlm.logits(vlm.hidden(padded, prompt, features))
        for row, line in enumerate(ids):
            self.equal(trained[row, : len(line)], self.logits(vlm, line, features[row]), 1e-4)

    def test_prompts_that_begin_alike_equal_each_alone(self, vlm: Vlm, pictures: list[Image.Image]) -> None:
        """Several texts with a picture at two exits, and without one, in batches of two and of all rows.

        The picture's tokens are read once for all texts, if the family supports that.
        """
        at = vlm.encode(pictures[:1], [1, 2])
        seen = [feature for feature in (at[1][0], at[2][0], None) for _ in _SHORT]
        ids = [
            vlm.tokens(vlm.prompt(text, picture=feature is not None), feature)
            for feature, text in zip(seen, _SHORT * 3, strict=True)
        ]
        read: list[int] = []
        hidden = vlm.hidden

        def counted(ids: Tensor, prompt: Tensor, *others: Any) -> Tensor:
            read.append(int(((ids == vlm.picture_token_id) & prompt).sum()))
            return hidden(ids, prompt, *others)

        self.equal_alone(vlm, ids, seen, 2, None)
        vlm.hidden = counted  # type: ignore[method-assign, assignment]
        try:
            respond(vlm, ids, seen, Decoding(2))
        finally:
            del vlm.hidden
        each = sum(line.count(vlm.picture_token_id) for line in ids)
        if vlm.streams:
            assert sum(read) == (each if vlm.reads_ahead else each // len(_SHORT))

    def test_prompts_behind_a_long_text_equal_each_alone(self, vlm: Vlm, pictures: list[Image.Image]) -> None:
        """A long text before the picture is read once for all pictures, if `lead_alone`."""
        made = vlm.encode(pictures[:2], [1])[1]
        seen = [made[0], made[0], made[1], None]
        text = vlm.tokenizer("Be kind. " * 9, add_special_tokens=False)["input_ids"]
        ids = []
        for feature, said in zip(seen, _SHORT, strict=True):
            line = vlm.tokens(vlm.prompt(said, picture=feature is not None), feature)
            ids.append(
                [*line[:1], *text, *line[1:]] if vlm.tokenizer.bos_token_id == line[0] else [*text, *line]
            )
        read: list[int] = []
        hidden = vlm.hidden

        def counted(ids: Tensor, *others: Any) -> Tensor:
            read.append(ids.numel())
            return hidden(ids, *others)

        vlm.hidden = counted  # type: ignore[method-assign, assignment]
        try:
            self.equal_alone(vlm, ids, seen, None)
        finally:
            del vlm.hidden
        if vlm.lead_alone:
            assert sum(read) < sum(map(len, ids)) - 2 * len(text)

    def equal_alone(
        self, vlm: Vlm, ids: list[list[int]], features: Sequence[Feature | None], *batch_sizes: int | None
    ) -> None:
        """Assert that rows in batches of these sizes get the answers of `generate` for each alone."""
        alone = [
            vlm.generate([line], [feature], max_new_tokens=7, do_sample=False)[0].tolist()
            for line, feature in zip(ids, features, strict=True)
        ]
        for batch_size in batch_sizes:
            together = respond(vlm, ids, features, Decoding(7), batch_size=batch_size)
            for line, feature, batched, own in zip(ids, features, together, alone, strict=True):
                self.same(vlm, line, feature, batched.tokens, own)

    def test_training_sees_what_was_generated(self, vlm: Vlm, pictures: list[Image.Image]) -> None:
        """The forward pass over prompt and answer gives the logits of generation."""
        feature = vlm.encode(pictures[:1], [2])[2][0]
        ids = vlm.tokens(vlm.prompt(TEXTS[1], picture=True), feature)
        settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
        answer = vlm.generate([ids], [feature], **settings)[0].tolist()
        line = torch.tensor([[*ids, *answer]])
        prompt = torch.arange(line.shape[1])[None] < len(ids)
        with torch.no_grad():
            logits = vlm.logits(vlm.hidden(line, prompt, [feature]))[0, len(ids) - 1 : -1]
        ends = list(vlm.eos_tokens)
        logits[:, ends] = -torch.inf  # min_new_tokens
        best = logits.topk(2).values
        for at, token in enumerate(answer):
            assert int(logits[at].argmax()) == token or float(best[at, 0] - best[at, 1]) < TIE

    # --- prompts

    def test_one_bos_and_the_right_number_of_picture_tokens(
        self, vlm: Vlm, pictures: list[Image.Image]
    ) -> None:
        """The prompt has one BOS, whether the template or the tokenizer writes it."""
        feature = vlm.encode(pictures[:1], [1])[1][0]
        prompt = vlm.prompt(TEXTS[0], picture=True)
        ids = vlm.tokens(prompt, feature)
        assert ids.count(vlm.picture_token_id) == feature.text.count(vlm.picture_token) > 0
        assert prompt.count(vlm.placeholder) == 1
        bos = vlm.tokenizer.bos_token_id
        starts = self.their_inputs(vlm, TEXTS[0], pictures[0])["input_ids"][0].tolist().count(bos)
        assert ids.count(bos) == starts <= 1

    # --- adapters and training

    def test_an_adapter_trains_and_loads_and_touches_no_vision(
        self, vlm: Vlm, pictures: list[Image.Image], tmp_path: Path
    ) -> None:
        """One L-PPO step at exit 1 changes only the language model's adapter and value head."""
        source = vlm.checkpoint.path
        fresh = load(source, variant=vlm.reading)
        own = {name: p.detach().clone() for name, p in fresh.model.named_parameters()}
        seen: list[Tensor] = []
        hidden = fresh.hidden

        def recorded(
            ids: Tensor, prompt: Tensor, features: Sequence[Feature | None], cache: Cache | None = None
        ) -> Tensor:
            seen.extend(feature.tokens for feature in features if feature is not None)
            return hidden(ids, prompt, features, cache)

        fresh.hidden = recorded  # type: ignore[method-assign]
        train(fresh, self.cases(pictures), _Reward(), tmp_path / "out", _SETTINGS)
        made_at = vlm.encode(pictures[: len(_KINDS)], vlm.exits.all)
        exits = {self.exit_of(tokens, made_at) for tokens in seen}
        assert exits == {1, fresh.exits.default}, "training used an exit that was not requested"
        trained = {name.replace("base_layer.", ""): p for name, p in fresh.model.named_parameters()}
        lora = {name: p for name, p in trained.items() if "lora_" in name}
        assert all(torch.equal(own[name], p) for name, p in trained.items() if name not in lora)
        inner = tuple(f"{fresh.path_of(part)}." for part in fresh.language_parts)
        assert lora and all(name.startswith(inner) for name in lora)
        assert any(bool((p != 0).any()) for name, p in lora.items() if "lora_B" in name)
        merged = load(source, adapter=tmp_path / "out", variant=vlm.reading)
        changed = {name for name, p in merged.model.named_parameters() if not torch.equal(own[name], p)}
        assert changed and all(name.startswith(inner) for name in changed)
        made, again = (m.encode(pictures[:1], [1])[1][0] for m in (vlm, merged))
        assert torch.equal(made.tokens, again.tokens)
        ids = vlm.tokens(vlm.prompt(TEXTS[0], picture=True), made)
        assert not torch.equal(self.logits(vlm, ids, made), self.logits(merged, ids, made))

    def cases(self, pictures: list[Image.Image]) -> list[Case]:
        """A few harmless cases with both kinds that training needs."""
        rows = zip(TEXTS, _KINDS, pictures, strict=False)
        return [Case(text, text, kind, _Shown(picture)) for text, kind, picture in rows]

    def exit_of(self, tokens: Tensor, made: dict[int, list[Feature]]) -> int:
        """The only exit whose features equal a picture's tokens up to rounding."""
        near = []
        for exit, features in made.items():
            for feature in features:
                if feature.tokens.shape == tokens.shape:
                    gap = (feature.tokens - tokens).abs().max() / feature.tokens.abs().max()
                    near += [exit] if float(gap) < 1e-4 else []
        (found,) = near
        return found

    @staticmethod
    def equal(one: Tensor, other: Tensor, relative: float = 1e-5) -> None:
        """Assert equal shapes, and values equal up to `relative` times the largest."""
        assert one.shape == other.shape
        if one.numel():
            scale = float(other.abs().max())
            assert scale > 0, "all values are zero, so equality would be trivial"
            gap = float((one.double() - other.double()).abs().max())
            assert gap <= relative * scale, f"differs by {gap:.2e}; the largest value is {scale:.2e}"


@dataclass(frozen=True)
class _Shown:
    """A picture without a file."""

    picture: Image.Image
    path: str = ""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(repr(self.picture.size).encode() + self.picture.tobytes()).hexdigest()

    def open(self) -> Image.Image:
        return self.picture


class _Reward:
    """An arbitrary reward: the share of distinct letters."""

    name = "letters"

    def record(self) -> dict[str, str]:
        return {"name": self.name}

    def score(self, cases: Sequence[Case], answers: Sequence[str]) -> Tensor:
        return torch.tensor([len(set(answer)) / (1 + len(answer)) for answer in answers])


_KINDS: tuple[Kind, ...] = ("harmful", "benign", "harmful", "benign")
_SETTINGS = AlignSettings(
    exits="1", steps=1, rows=8, epochs=2, max_new_tokens=6, rank=2, lr=0.05, retention_share=0.25
)
