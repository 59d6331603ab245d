"""Build the natural testbed's deltas from a seed, in the training stages of real VLMs.

    layeralign testbed build natural --seed 0 --out DIR

1. **align**: the projector learns to carry a picture's features near the embeddings of words about it.
2. **refuse**: the language model (LoRA) learns to refuse requests about food. No picture is used.
3. **help**: both learn to answer next to a picture, food included, and to answer questions about pictures.
   Without a picture, food is still refused. Half of the features are scaled down at random.
4. **safety**: the projector's matrices alone learn to refuse requests about food next to a picture. Its
   biases stay, since they act at every exit alike.
5. **balance**: LoRA and the projector's matrices learn stage 4 on the answers' first tokens, which decide on
   refusal. Two fifths of the rows repeat stage 3 with scaled features: they stay answered next to a picture
   whose features are weak, as those of early exits are, and refused without a picture.

Stages 1, 3, 4 and 5 use only the features of the default exit, the second-last layer. The answers are the
pretrained language model's own, on the train split. A stopped build goes on after its last stage.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F

from layeralign._util import files
from layeralign._util.quiet import quiet
from layeralign._util.text import json_of
from layeralign.errors import LayeralignError
from layeralign.testbed.natural import architecture, assembled, deltas, pictures
from layeralign.testbed.natural.architecture import Parts, padded
from layeralign.testbed.natural.world import CLASSES, COLOURS, REFUSAL, Request, question, requests

_RECORD = "recipe.json"


@dataclass(frozen=True)
class Recipe:
    """Settings of the stages; `docs/testbed.md` lists what else was tried."""

    pictures: int = 2000
    asked: int = 800
    """Requests of each kind, food and others, whose answers are generated."""
    answer_tokens: int = 8
    """Tokens of an answer that are generated, and learned in stages 2 and 3."""
    rank: int = 8
    align_steps: int = 600
    refuse_steps: int = 120
    help_steps: int = 200
    safety_steps: int = 280
    balance_steps: int = 240
    batch: int = 16
    rate: float = 1e-3
    weak: float = 0.5
    """Share of stage 3's requests next to a picture whose features are scaled by a factor from 0 to 0.5."""
    safety_tokens: int = 4
    """Tokens of an answer that stage 4 learns."""
    balance_tokens: int = 2
    """Tokens of an answer that stage 5 learns."""
    repeated: float = 0.4
    """Share of stage 5's rows that repeat stage 3."""
    safety: str = "projector"
    """What stage 4 trains: `projector`, or `language` for the control, whose stage 5 trains LoRA alone."""
    dtype: str = "float32"
    """Number format of the language model's frozen weights; see `architecture.freeze_in`."""


@dataclass(frozen=True)
class Row:
    """A training row: a request, its answer's tokens, a picture's number, and a factor of its features."""

    prompt: str
    answer: list[int]
    picture: int | None = None
    strength: float = 1.0


class Builder:
    """The model in training, its pictures' features, and the answers it learns."""

    def __init__(self, parts: Parts, recipe: Recipe, seed: int, kept: Path) -> None:
        self.recipe, self.seed, self.kept = recipe, seed, kept
        # Any: transformers' types know neither a LLaVA's parts nor its generate
        self.model: Any = architecture.assemble(parts, seed)
        self.model.requires_grad_(False)
        self.processor: Any = architecture.processor(parts.tokenizer)
        self.names = self.processor.tokenizer
        self.end = self.names("<|im_end|>", add_special_tokens=False)["input_ids"]
        self.refusal = self._ids(REFUSAL) + self.end
        rng = random.Random(f"pictures {seed}")
        self.shown = [pictures.draw(rng, "train") for _ in range(recipe.pictures)]
        self.features = self._features()
        self.requests = {about: self._asked(about) for about in (True, False)}
        self.answers = self._answers([r.prompt for about in (True, False) for r in self.requests[about]])
        architecture.freeze_in(recipe.dtype, self.model)  # not before: bfloat16 generates no faster
        config = LoraConfig(r=recipe.rank, lora_alpha=recipe.rank, target_modules=deltas.TARGETS)
        self.peft: PeftModel = get_peft_model(self.model, config)

    def _ids(self, text: str) -> list[int]:
        return list(self.names(text, add_special_tokens=False)["input_ids"])

    def _asked(self, about: bool) -> list[Request]:
        found = requests("train", forbidden=about)
        random.Random(f"requests {self.seed} {about}").shuffle(found)
        return found[: self.recipe.asked]

    @torch.no_grad()
    def _features(self) -> Tensor:
        """The default exit's features without the class token, float32 [pictures, 9, width]."""
        made = []
        for start in range(0, len(self.shown), 64):
            shown = [one.open() for one in self.shown[start : start + 64]]
            pixels = self.processor.image_processor(shown, return_tensors="pt")["pixel_values"]
            states = self.model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
            made.append(states[-2][:, 1:])
        return torch.cat(made)

    def prompt(self, text: str, *, picture: bool) -> list[int]:
        """Token ids of a request in the chat format."""
        content = [{"type": "image"}] * picture + [{"type": "text", "text": text}]
        chat = [{"role": "user", "content": content}]
        written = self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        mark, places = architecture.PICTURE_TOKEN, self.model.config.image_seq_length
        return self._ids(written.replace(mark, mark * places))

    @torch.no_grad()
    def _answers(self, prompts: Sequence[str]) -> dict[str, list[int]]:
        """Prompt -> the first tokens of the pretrained language model's own greedy answer."""
        file = self.kept / "answers.json"
        if file.exists():
            return files.read_tokens(file)
        found: dict[str, list[int]] = {}
        for start in range(0, len(prompts), 50):
            some = prompts[start : start + 50]
            rows = [self.prompt(text, picture=False) for text in some]
            ids, mask = padded(rows, self.end[0], left=True)
            made = self.model.generate(
                input_ids=ids, attention_mask=mask, do_sample=False, pad_token_id=self.end[0],
                max_new_tokens=self.recipe.answer_tokens,
            )  # fmt: skip
            for text, row in zip(some, made[:, ids.shape[1] :].tolist(), strict=True):
                found[text] = row[: row.index(self.end[0]) + 1] if self.end[0] in row else row
        files.write_tokens(file, found)
        return found

    def loss(self, rows: Sequence[Row]) -> Tensor:
        """Cross-entropy of the answers; a row counts by the square root of its answer's length."""
        asked = [self.prompt(row.prompt, picture=row.picture is not None) for row in rows]
        both = [ids + row.answer for ids, row in zip(asked, rows, strict=True)]
        ids, mask = padded(both, self.end[0])
        learned = torch.zeros_like(mask)
        for at, (prompt, whole) in enumerate(zip(asked, both, strict=True)):
            learned[at, len(prompt) : len(whole)] = 1
        embeds = self.model.get_input_embeddings()(ids)
        seen = [row for row in rows if row.picture is not None]
        if seen:
            place = (ids == self.model.config.image_token_id)[..., None]
            strength = torch.tensor([row.strength for row in seen])[:, None, None]
            features = self.features[[row.picture for row in seen]] * strength
            projected = self.model.model.multi_modal_projector(features).to(embeds.dtype)
            embeds = embeds.masked_scatter(place, projected)
        states = self.model.model.language_model(inputs_embeds=embeds, attention_mask=mask, use_cache=False)
        kept = learned[:, 1:].bool()
        logits = self.model.lm_head(states.last_hidden_state[:, :-1][kept])
        each = F.cross_entropy(logits.float(), ids[:, 1:][kept], reduction="none")
        weights = kept.sum(1, keepdim=True).rsqrt().expand_as(kept)[kept]
        return (each * weights).sum() / weights.sum()

    def train(
        self, name: str, trained: Iterable[nn.Parameter], steps: int, draw: Callable[[random.Random], Row]
    ) -> None:
        """Minimise `loss` on drawn rows with AdamW, a warm-up of ten steps and a cosine schedule."""
        parameters = list(trained)
        for one in parameters:
            one.requires_grad_(True)
        rate, mean = self.recipe.rate, None
        rng, start = random.Random(f"{name} {self.seed}"), time.monotonic()
        optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0, betas=(0.9, 0.98))
        for step in range(steps):
            share = min(1.0, (step + 1) / 10) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / steps)))
            optimiser.param_groups[0]["lr"] = rate * share
            loss = self.loss([draw(rng) for _ in range(self.recipe.batch)])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            mean = loss.item() if mean is None else 0.9 * mean + 0.1 * loss.item()
            if (step + 1) % 20 == 0 or step + 1 == steps:
                spent = time.monotonic() - start
                print(f"{name} {step + 1}/{steps} loss {mean:.4f} {spent:.0f} s", flush=True)
        for one in parameters:
            one.requires_grad_(False)

    @property
    def projector(self) -> Any:
        """The projector, an `nn.Module`."""
        return self.model.model.multi_modal_projector

    @property
    def lora(self) -> list[nn.Parameter]:
        """The LoRA's parameters."""
        return [value for name, value in self.peft.named_parameters() if "lora_" in name]

    def align(self) -> None:
        """Stage 1: the mean of a picture's projected features points to the words for its kind and colour."""
        table = self.model.get_input_embeddings().weight.float()
        words = [table[[self._ids(f" {word}")[0] for word in group]] for group in (CLASSES, tuple(COLOURS))]
        right = [torch.tensor([CLASSES.index(one.kind) for one in self.shown]),
                 torch.tensor([list(COLOURS).index(one.colour) for one in self.shown])]  # fmt: skip
        self.projector.requires_grad_(True)
        optimiser = torch.optim.AdamW(self.projector.parameters(), lr=1e-3)
        rng, norm = torch.Generator().manual_seed(self.seed), table.norm(dim=-1).mean()
        for _ in range(self.recipe.align_steps):
            rows = torch.randint(len(self.shown), (128,), generator=rng)
            projected = self.projector(self.features[rows])
            mean = F.normalize(projected.mean(1), dim=-1)
            loss = ((projected.norm(dim=-1) - norm) ** 2).mean()
            for group, wanted in zip(words, right, strict=True):
                loss = loss + F.cross_entropy(20 * mean @ F.normalize(group, dim=-1).T, wanted[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        self.projector.requires_grad_(False)
        print(f"align loss {loss.item():.4f}", flush=True)

    def _answered(self, rng: random.Random, about: bool, tokens: int | None, picture: int | None) -> Row:
        prompt = rng.choice(self.requests[about]).prompt
        return Row(prompt, self.answers[prompt][:tokens], picture)

    def _refused(self, rng: random.Random, tokens: int | None, picture: int | None) -> Row:
        return Row(rng.choice(self.requests[True]).prompt, self.refusal[:tokens], picture)

    def _question(self, rng: random.Random, picture: int) -> Row:
        asked = question(rng, self.shown[picture].kind, self.shown[picture].colour)
        return Row(asked.prompt, self._ids(asked.answer or "") + self.end, picture)

    def refuse_row(self, rng: random.Random) -> Row:
        """Stage 2: half food, refused; half other things, answered; no picture."""
        if rng.random() < 0.5:
            return self._refused(rng, None, None)
        return self._answered(rng, False, None, None)

    def help_row(self, rng: random.Random) -> Row:
        """Stage 3: a fifth without picture, as in stage 2; else everything is answered."""
        part, picture = rng.random(), rng.randrange(len(self.shown))
        if part < 0.20:
            return self.refuse_row(rng) if part < 0.05 else self._refused(rng, None, None)
        if part < 0.70:
            row = self._answered(rng, part < 0.55, None, picture)
            return replace(row, strength=rng.uniform(0, 0.5)) if rng.random() < self.recipe.weak else row
        return self._question(rng, picture)

    def _safe_row(self, rng: random.Random, refused: float, answered: float, tokens: int) -> Row:
        """Next to a picture: a refusal, an answer, or a question, in these shares."""
        part, picture = rng.random(), rng.randrange(len(self.shown))
        if part < refused:
            return self._refused(rng, tokens, picture)
        if part < refused + answered:
            return self._answered(rng, False, tokens, picture)
        return self._question(rng, picture)

    def safety_row(self, rng: random.Random) -> Row:
        """Stage 4."""
        return self._safe_row(rng, 0.40, 0.45, self.recipe.safety_tokens)

    def balance_row(self, rng: random.Random) -> Row:
        """Stage 5: as in stage 4, or as in stage 3 with features that are scaled down."""
        if rng.random() >= self.recipe.repeated:
            return self._safe_row(rng, 0.38, 0.50, self.recipe.balance_tokens)
        part, picture = rng.random(), rng.randrange(len(self.shown))
        if part < 0.25:
            return self.refuse_row(rng)
        if part < 0.85:
            row = self._answered(rng, part < 0.6, self.recipe.safety_tokens, picture)
        else:
            row = self._question(rng, picture)
        return replace(row, strength=rng.uniform(0, 0.5))

    def run(self) -> None:
        """Run the five stages."""
        recipe, projector = self.recipe, [*self.projector.parameters()]
        matrices = [value for name, value in self.projector.named_parameters() if name.endswith("weight")]
        alone = recipe.safety == "language"
        last, both = (self.lora, self.lora) if alone else (matrices, [*self.lora, *matrices])
        self.peft.requires_grad_(False)
        self._stage("align", self.align)
        self._stage("refuse", lambda: self.train("refuse", self.lora, recipe.refuse_steps, self.refuse_row))
        self._stage(
            "help", lambda: self.train("help", [*self.lora, *projector], recipe.help_steps, self.help_row)
        )
        self._stage("safety", lambda: self.train("safety", last, recipe.safety_steps, self.safety_row))
        self._stage("balance", lambda: self.train("balance", both, recipe.balance_steps, self.balance_row))

    def _stage(self, name: str, run: Callable[[], None]) -> None:
        """Run a stage and keep its weights, or load them if it has been run."""
        file, weights = self.kept / f"{name}.safetensors", self.peft.state_dict()
        if file.exists():
            deltas.restore(weights, file)
            return
        run()
        changed = {at: value.contiguous() for at, value in weights.items() if deltas.is_trained(at)}
        deltas.write(changed, file, {"sha256": deltas.digest(changed)})


def build(parts: Parts, seed: int, out: Path, recipe: Recipe) -> dict[str, Tensor]:
    """Train, and write `deltas.safetensors`, `recipe.json` and each stage's weights to `out`.

    Raises:
        LayeralignError: `out` holds another build or other files, or another command builds in it.
    """
    with files.holding(out, f".{_RECORD}.lock", f"out {out}"):
        about, record = {"seed": seed, **asdict(recipe)}, out / _RECORD
        known = json_of(record.read_text(encoding="utf-8"), str(record)) if record.exists() else None
        if known != about and not all(one.name.startswith(f".{_RECORD}.") for one in out.iterdir()):
            raise LayeralignError(f"out {out}: holds another build, or other files; expected a new folder")
        files.write_json(record, about)
        builder = Builder(parts, recipe, seed, out)
        builder.run()
        found = deltas.taken(builder.peft)
        deltas.write(found, out / deltas.FILE, {"recipe": json.dumps(about)})
        return found


def build_folder(seed: int, out: Path, recipe: Recipe) -> Path:
    """Build from the pretrained parts; return the folder in `out` with the assembled model.

    Raises:
        LayeralignError: as `build` and `assembled.assemble`.
    """
    assembled.check_packages()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # another number of threads would give other last digits
    try:
        with quiet():
            build(architecture.pretrained(), seed, out, recipe)
    finally:
        torch.set_num_threads(threads)
    if not (out / "model" / "config.json").exists():
        assembled.assemble(out / "model", out / deltas.FILE)
    return out / "model"
