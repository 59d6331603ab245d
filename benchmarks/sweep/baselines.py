"""What people use instead: a loop around `generate`, the same in batches, and a harness; nothing of layeralign."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from layeralign.cases.case import Case

Answers = dict[tuple[str, int], str]
"""Case and exit -> what was said."""


class Loop:
    """A and B: for each exit, so many cases at a time, the processor and `generate(vision_feature_layer=l)`."""

    def __init__(self, model: Any, processor: Any, size: int) -> None:
        self._model, self._processor, self._size = model, processor, size

    @torch.no_grad()
    def answers(self, cases: Sequence[Case], exits: Sequence[int], longest: int) -> Answers:
        """Every case at every exit."""
        found: Answers = {}
        for exit in exits:
            for at in range(0, len(cases), self._size):
                some = cases[at : at + self._size]
                texts = self._batch(some, exit, longest)
                found |= {(case.id, exit): text for case, text in zip(some, texts, strict=True)}
        return found

    def _batch(self, cases: Sequence[Case], exit: int, longest: int) -> list[str]:
        processor, model = self._processor, self._model
        turns = [
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": case.prompt}]}]
            for case in cases
        ]
        inputs = processor(
            images=[case.picture.open() for case in cases],
            text=[processor.apply_chat_template(turn, add_generation_prompt=True) for turn in turns],
            padding=True, return_tensors="pt",
        ).to(model.device, model.dtype)  # fmt: skip
        said = model.generate(
            **inputs, vision_feature_layer=exit, do_sample=False, max_new_tokens=longest, pad_token_id=0
        )
        return list(processor.batch_decode(said[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


class Harness:
    """C: EleutherAI's lm-evaluation-harness (`hf-multimodal`), all cases of an exit as one batch.

    It has no exits: the loaded model's config is set to each in turn. It has no adaptive batch for pictures.
    """

    def __init__(self, folder: Path, model: Any, size: int) -> None:
        from lm_eval.models.hf_vlms import HFMultimodalLM

        dtype = str(model.dtype).removeprefix("torch.")
        self._lm = HFMultimodalLM(
            pretrained=str(folder), batch_size=size, device=str(model.device), dtype=dtype
        )

    @staticmethod
    def missing() -> bool:
        """Whether it is not installed: `pip install lm-eval`."""
        return importlib.util.find_spec("lm_eval") is None

    def answers(self, cases: Sequence[Case], exits: Sequence[int], longest: int) -> Answers:
        """See `Loop.answers`."""
        from lm_eval.api.instance import Instance

        found: Answers = {}
        settings = {"max_gen_toks": longest, "until": [], "do_sample": False, "temperature": 0.0}
        for exit in exits:
            self._lm.model.config.vision_feature_layer = exit
            asked = []
            for number, case in enumerate(cases):
                text = self._lm.apply_chat_template([{"role": "user", "content": f"<image>{case.prompt}"}])
                given = (text, dict(settings), {"visual": [case.picture.open()]})
                asked.append(Instance("generate_until", {}, given, number))
            texts = self._lm.generate_until(asked, disable_tqdm=True)
            found |= {(case.id, exit): text for case, text in zip(cases, texts, strict=True)}
        return found
