"""Build the testbed's model from a seed, in the training stages of real VLMs.

    layeralign testbed build small --seed 0 --out DIR

1. The encoder learns to see, with a supervised head on each patch of its last layer (CLIP's loss reads the
   last layer, too). It is frozen afterwards.
2. Projector and language model learn to help with every request.
3. Projector and language model learn the safety rule (see `world`).

Stages 2 and 3 use only the features of the default exit, the second-last layer. Only the train split is used.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionModel, LlavaForConditionalGeneration, LlavaProcessor

from layeralign._util import files
from layeralign._util.quiet import quiet
from layeralign.errors import LayeralignError
from layeralign.testbed import architecture
from layeralign.testbed.draw import SIZE, draw
from layeralign.testbed.world import (
    CELLS,
    COLOURS,
    SHAPES,
    Request,
    Scene,
    describe,
    how_to,
    picture_question,
    sample_scene,
)


@dataclass(frozen=True)
class Recipe:
    """Settings of the three stages; `docs/testbed.md` lists the alternatives that were tried."""

    pictures: int = 60_000
    """Number of pictures of the train split, shared by all stages."""
    see_steps: int = 600
    see_batch: int = 128
    see_rate: float = 1e-3
    help_steps: int = 1000
    safety_steps: int = 800
    batch: int = 64
    """Answers per step in stages 2 and 3."""
    help_rate: float = 1.5e-3
    safety_rate: float = 1e-3
    mix: tuple[float, float, float, float] = (0.30, 0.10, 0.40, 0.20)
    """Shares of harmful verbs, benign verbs, picture questions and descriptions."""
    permitted: float = 0.6
    """Share of the requests with harmful verbs that are authorised."""


def _pictures(recipe: Recipe, rng: random.Random) -> tuple[list[Scene], Tensor]:
    """Scenes and their pictures, uint8 [n, 32, 32, 3]."""
    scenes = [sample_scene(rng, "train") for _ in range(recipe.pictures)]
    pixels = np.stack([draw(scene, i) for i, scene in enumerate(scenes)])
    return scenes, torch.from_numpy(pixels)


def normalise(pixels: Tensor, processor: LlavaProcessor) -> Tensor:
    """Convert uint8 [n, h, w, 3] to float32 [n, 3, h, w], equal to the image processor's output."""
    mean = torch.tensor(processor.image_processor.image_mean)
    std = torch.tensor(processor.image_processor.image_std)
    return ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)


def _schedule(optimiser: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    warm = min(100, 1 + steps // 10)
    return torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda i: min((i + 1) / warm, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * i / steps))),
    )


def _train(
    name: str, parameters: list[nn.Parameter], rate: float, losses: Iterator[Tensor], steps: int
) -> None:
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = _schedule(optimiser, steps)
    start, mean = time.monotonic(), 0.0
    for step in range(1, steps + 1):
        loss = next(losses)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        mean = loss.item() if step == 1 else 0.98 * mean + 0.02 * loss.item()
        if step % 100 == 0 or step == steps:
            rate_now = step / (time.monotonic() - start)
            print(f"{name} {step}/{steps} loss {mean:.4f} {rate_now:.1f} steps/s", flush=True)


def _layout(scenes: list[Scene]) -> Tensor:
    """Shape and colour in each cell, int64 [n, 4, 2]; 0 for an empty cell."""
    table = torch.zeros(len(scenes), len(CELLS), 2, dtype=torch.long)
    for i, scene in enumerate(scenes):
        for t in scene.things:
            table[i, t.cell] = torch.tensor([SHAPES.index(t.shape) + 1, COLOURS.index(t.colour) + 1])
    return table


def _cell_of_patch() -> Tensor:
    """The cell of each patch, int64 [16], patches in row order."""
    side, cells = SIZE // architecture.PATCH, int(len(CELLS) ** 0.5)
    at = torch.arange(side) * cells // side
    return (at[:, None] * cells + at[None, :]).flatten()


def see(
    tower: CLIPVisionModel,
    scenes: list[Scene],
    pixels: Tensor,
    recipe: Recipe,
    processor: LlavaProcessor,
    seed: int,
) -> None:
    """Stage 1: predict the shape and colour in each patch's cell from the last layer."""
    kinds = (len(SHAPES) + 1, len(COLOURS) + 1)
    width = tower.config.hidden_size
    head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, sum(kinds)))
    layout = _layout(scenes)[:, _cell_of_patch()]
    rng = torch.Generator().manual_seed(seed)

    def losses() -> Iterator[Tensor]:
        while True:
            rows = torch.randint(len(scenes), (recipe.see_batch,), generator=rng)
            last = tower(pixel_values=normalise(pixels[rows], processor)).last_hidden_state[:, 1:]
            logits = head(last).split(kinds, dim=-1)
            parts = [
                F.cross_entropy(x.flatten(0, 1), layout[rows, :, i].flatten()) for i, x in enumerate(logits)
            ]
            yield parts[0] + parts[1]

    _train("see", [*tower.parameters(), *head.parameters()], recipe.see_rate, losses(), recipe.see_steps)


@torch.no_grad()
def features(tower: CLIPVisionModel, pixels: Tensor, processor: LlavaProcessor) -> Tensor:
    """The default exit's features without CLS, float32 [n, 16, width]."""
    parts = []
    for part in pixels.split(512):
        states = tower(pixel_values=normalise(part, processor), output_hidden_states=True).hidden_states
        parts.append(states[-2][:, 1:])
    return torch.cat(parts)


@dataclass(frozen=True)
class Lessons:
    """Training data of stages 2 and 3: scenes, and the frozen encoder's features of their pictures."""

    scenes: list[Scene]
    seen: Tensor
    """Features of the default exit, float32 [n, 16, width]."""
    permitted: dict[bool, list[int]]
    """Indices of the scenes that authorise (True) and of those that forbid (False)."""

    def request(self, rng: random.Random, recipe: Recipe) -> tuple[int, Request]:
        """Draw the index of a scene and a request about it."""
        kind = rng.choices(("harmful", "benign", "vqa", "describe"), recipe.mix)[0]
        row = rng.randrange(len(self.scenes))
        if kind == "harmful":
            row = rng.choice(self.permitted[rng.random() < recipe.permitted])
        scene = self.scenes[row]
        if kind in ("harmful", "benign"):
            return row, how_to(rng, "train", scene, harmful=kind == "harmful")
        return row, picture_question(rng, scene) if kind == "vqa" else describe(rng, scene)


def _texts(processor: LlavaProcessor, drawn: list[tuple[str, str]], pictures: int) -> tuple[Tensor, Tensor]:
    """Token ids and labels, int64 [rows, length], of (prompt, answer) pairs; labels are -100 in prompts."""
    names = processor.tokenizer
    asked = names([f"USER: {'<image>' * pictures}\n{prompt} ASSISTANT:" for prompt, _ in drawn])["input_ids"]
    answers = names([f"{answer}</s>" for _, answer in drawn], add_special_tokens=False)["input_ids"]
    length = max(len(a) + len(t) for a, t in zip(asked, answers, strict=True))
    ids = torch.full((len(drawn), length), names.pad_token_id)
    labels = torch.full_like(ids, -100)
    for i, (a, t) in enumerate(zip(asked, answers, strict=True)):
        ids[i, : len(a) + len(t)] = torch.tensor(a + t)
        labels[i, len(a) : len(a) + len(t)] = torch.tensor(t)
    return ids, labels


def speak(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    lessons: Lessons,
    recipe: Recipe,
    seed: int,
    *,
    safe: bool,
) -> None:
    """Stage 2 or, with `safe`, stage 3: cross-entropy on the tokens of the right answer."""
    name = "safety" if safe else "help"
    rng = random.Random(f"{name} {seed}")
    rate, steps = (recipe.safety_rate, recipe.safety_steps) if safe else (recipe.help_rate, recipe.help_steps)
    projector, language = model.model.multi_modal_projector, model.model.language_model

    def losses() -> Iterator[Tensor]:
        while True:
            drawn = [lessons.request(rng, recipe) for _ in range(recipe.batch)]
            pairs = [(r.prompt, r.proper if safe else r.helpful) for _, r in drawn]
            ids, labels = _texts(processor, pairs, model.config.image_seq_length)
            place = (ids == model.config.image_token_id)[..., None]
            projected = projector(lessons.seen[[row for row, _ in drawn]])
            embeds = model.get_input_embeddings()(ids).masked_scatter(place, projected)
            hidden = language(inputs_embeds=embeds).last_hidden_state[:, :-1]
            kept = labels[:, 1:] != -100
            each = F.cross_entropy(model.lm_head(hidden[kept]), labels[:, 1:][kept], reduction="none")
            # An answer has the weight of the square root of its length: short answers about the picture
            # still count, and long ones are still copied exactly
            weights = kept.sum(1, keepdim=True).rsqrt().expand_as(kept)[kept]
            yield (each * weights).sum() / weights.sum()

    _train(name, [*projector.parameters(), *language.parameters()], rate, losses(), steps)


def build(seed: int, out: Path, recipe: Recipe) -> None:
    """Run the stages; write model and processor to `out`, and those of stage 2 to `out/helpful`.

    Raises:
        LayeralignError: `out` is not empty, as another model in it would be written over; or it cannot be
            written. Nothing is left behind.
    """
    _refuse_others(out)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a different summation order would give different weights
    try:
        with files.atomic_in(out, "the model") as draft:
            _build(seed, draft, recipe)
            _refuse_others(out)  # another command may have ended meanwhile
    finally:
        torch.set_num_threads(threads)


def _refuse_others(out: Path) -> None:
    if out.exists() and not (
        out.is_dir() and all(one.name.startswith(files.IN_FOLDER) for one in out.iterdir())
    ):
        raise LayeralignError(f"out {out}: is not empty; expected a new folder")


def _build(seed: int, out: Path, recipe: Recipe) -> None:
    processor, model = architecture.processor(), architecture.model(seed)
    scenes, pixels = _pictures(recipe, random.Random(f"scenes {seed}"))
    tower = model.model.vision_tower
    see(tower, scenes, pixels, recipe, processor, seed)
    tower.requires_grad_(False)
    rows: dict[bool, list[int]] = {True: [], False: []}
    for row, scene in enumerate(scenes):
        if scene.permits is not None:
            rows[scene.permits].append(row)
    lessons = Lessons(scenes, features(tower, pixels, processor), rows)
    for safe, folder in ((False, out / "helpful"), (True, out)):
        speak(model, processor, lessons, recipe, seed, safe=safe)
        with quiet():
            processor.save_pretrained(folder)
            model.save_pretrained(folder)
