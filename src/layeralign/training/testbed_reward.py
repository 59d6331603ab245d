"""Build the testbed's reward model from a seed; the one for `--sees scene` ships.

    python -m layeralign.training.testbed_reward --out DIR

1. A small GPT-2 learns the language of the testbed's world: to give helpful answers to everything, harmful
   or not, and to tell at each of their words whether they are still right. It learns no rule of safety:
   that is what GPT-2's pretraining is to the paper's reward.
2. It learns what is preferred from noisy pairs (see `layeralign.testbed.preferences`).

Only the train split is used. Pairs alone do not suffice for so small a model: after 64,000 of them it tells
a refusal from an answer (100 % on dev) and a right answer from a subtly wrong one badly (62 to 74 %).
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

from layeralign._util.progress import Progress
from layeralign.cases.dialogue import dialogue, human_turn
from layeralign.testbed import architecture
from layeralign.testbed.preferences import broken, draw, pairs, wrong
from layeralign.training.reward_model import schedule, train_reward
from layeralign.vlm.load import quiet

_POSITIONS = 128


@dataclass(frozen=True)
class Recipe:
    """Sizes of the model and of its training."""

    width: int = 64
    layers: int = 3
    heads: int = 4
    pairs: int = 40_000
    batch_size: int = 64
    rate: float = 5e-4
    base_steps: int = 1800
    base_rate: float = 3e-3


def tokenizer() -> PreTrainedTokenizerFast:
    """The testbed's words and syllables, and what HH-RLHF's form adds."""
    names = architecture.tokenizer()
    names.add_tokens(["human", "[", "]"])
    return names


def untrained(names: PreTrainedTokenizerFast, recipe: Recipe, seed: int) -> GPT2ForSequenceClassification:
    """A small GPT-2 with random weights and a scalar head."""
    config = GPT2Config(
        vocab_size=len(names),
        n_positions=_POSITIONS,
        n_embd=recipe.width,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own gelu, computed in one call
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=recipe.width**-0.5,  # 0.02 is for wide models: here attention would start flat
        bos_token_id=names.bos_token_id,
        eos_token_id=names.eos_token_id,
        pad_token_id=names.pad_token_id,
    )
    config.num_labels = 1
    torch.manual_seed(seed)
    return GPT2ForSequenceClassification(config)


@dataclass(frozen=True)
class Lesson:
    """Dialogues whose answers are helpful, or else wrong somewhere."""

    ids: Tensor
    """Tokens, int64 [n, length]."""
    answer: Tensor
    """Which tokens belong to the answers, bool [n, length]."""
    right: Tensor
    """Whether an answer is right up to a token, that included, bool [n, length]."""


def _lesson(names: Any, rng: random.Random, sees: str, n: int) -> Lesson:
    """`n` dialogues of the train split, every second answer helpful."""
    asked, told, helpful = [], [], []
    for i in range(n):
        scene, request = draw(rng)
        spoilt = wrong(rng, scene, request) if rng.random() < 0.7 else broken(rng, request.helpful)
        human = human_turn(request.prompt, scene.told() if sees == "scene" else None)
        asked.append(dialogue(human, ""))
        told.append(dialogue(human, spoilt if i % 2 else request.helpful))
        helpful.append(dialogue(human, request.helpful))
    starts = [len(row) for row in names(asked)["input_ids"]]
    rows = [row[:_POSITIONS] for row in names(told)["input_ids"]]
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    answer, right = torch.zeros(2, *ids.shape, dtype=torch.bool)
    for i, (row, best) in enumerate(zip(rows, names(helpful)["input_ids"], strict=True)):
        differ = (at for at, (one, other) in enumerate(zip(row, best, strict=False)) if one != other)
        same = next(differ, min(len(row), len(best)))
        answer[i, starts[i] : len(row)] = True
        right[i, starts[i] : same] = True
        if same == len(row) < len(best):  # an answer that is cut is not right where it ends
            right[i, len(row) - 1] = False
    return Lesson(ids, answer, right)


def save_base(folder: Path, recipe: Recipe, seed: int, sees: str = "scene") -> None:
    """Step 1: the small GPT-2 that knows the world's language, and its tokenizer."""
    names = tokenizer()
    model = untrained(names, recipe, seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.base_rate, weight_decay=0.0)
    rng = random.Random(f"language {seed}")
    with Progress("language", recipe.base_steps) as progress:
        for step in range(recipe.base_steps):
            lesson = _lesson(names, rng, sees, recipe.batch_size)
            for group in optimiser.param_groups:
                group["lr"] = recipe.base_rate * schedule(step, recipe.base_steps)
            optimiser.zero_grad(set_to_none=True)
            _language_loss(model, lesson).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            progress.advance(1)
    with quiet():
        model.save_pretrained(folder)
        names.save_pretrained(folder)


def _language_loss(model: GPT2ForSequenceClassification, lesson: Lesson) -> Tensor:
    """Half the cross-entropy of the helpful answers' next tokens, and that of being right so far."""
    hidden = model.transformer(lesson.ids, attention_mask=torch.ones_like(lesson.ids)).last_hidden_state
    spoken = lesson.answer[::2, 1:]
    logits = hidden[::2, :-1][spoken] @ model.transformer.wte.weight.T
    speaks = cross_entropy(logits, lesson.ids[::2, 1:][spoken])
    judged = model.score(hidden)[..., 0][lesson.answer]
    return 0.5 * speaks + binary_cross_entropy_with_logits(judged, lesson.right[lesson.answer].float())


def build(out: Path, *, sees: Literal["scene", "text"], seed: int, recipe: Recipe) -> dict[str, Any]:
    """Make base and pairs, train; the model and `reward.json` are left in `out`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order would end in other weights
    try:
        with tempfile.TemporaryDirectory() as work:
            base, file = Path(work) / "testbed-base", Path(work) / "testbed-pairs.jsonl"
            save_base(base, recipe, seed, sees)
            drawn = pairs(recipe.pairs, seed, sees)
            file.write_text("".join(json.dumps(pair) + "\n" for pair in drawn), encoding="utf-8")
            return train_reward(
                file,
                base,
                out,
                batch_size=recipe.batch_size,
                rate=recipe.rate,
                seed=seed,
                held_out=0.02,
                sees=sees,
            )
    finally:
        torch.set_num_threads(threads)


def main() -> None:
    """Command line of the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sees", choices=("scene", "text"), default="scene")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.monotonic()
    record = build(arguments.out, sees=arguments.sees, seed=arguments.seed, recipe=Recipe())
    print(f"held out: {record['held_out']}; built in {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
