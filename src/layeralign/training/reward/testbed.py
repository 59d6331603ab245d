"""Builds the testbed's reward model from a seed; the model for `--sees scene` is part of the package.

    python -m layeralign.training.reward.testbed --out DIR

1. A small GPT-2 learns the language of the testbed's world. It learns to give helpful answers to every
   request, harmful or not, and to predict at each word of an answer whether the answer is still right. It
   learns no rule of safety. This stage corresponds to GPT-2's pretraining in the paper.
2. It learns preferences from noisy pairs (see `layeralign.testbed.preferences`).

Only the train split is used. Pairs alone do not suffice for so small a model. After 64,000 pairs it
separates refusals from answers (100 % on dev), but right answers from subtly wrong ones only in 62 to 74 %.
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

from layeralign._util.files import atomic_in
from layeralign._util.progress import Progress
from layeralign._util.quiet import quiet
from layeralign.cases.dialogue import dialogue, human_turn
from layeralign.testbed import architecture
from layeralign.testbed.preferences import broken, draw, pairs, wrong
from layeralign.training.reward.train import train_reward
from layeralign.training.state.schedule import set_lr

_POSITIONS = 128


@dataclass(frozen=True)
class Recipe:
    """Sizes of the model and of its training; `base_*` are those of the first stage."""

    width: int = 64
    layers: int = 3
    heads: int = 4
    pairs: int = 40_000
    batch_size: int = 64
    lr: float = 5e-4
    base_steps: int = 1800
    base_lr: float = 3e-3


def tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer of the testbed's words and syllables, with the tokens of HH-RLHF's form."""
    made = architecture.tokenizer()
    made.add_tokens(["human", "[", "]"])
    return made


def untrained(
    vocabulary: PreTrainedTokenizerFast, recipe: Recipe, seed: int
) -> GPT2ForSequenceClassification:
    """Return a small GPT-2 with random weights and a scalar head."""
    config = GPT2Config(
        vocab_size=len(vocabulary),
        n_positions=_POSITIONS,
        n_embd=recipe.width,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own gelu, computed in one call
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=recipe.width**-0.5,  # 0.02 suits wide models; here attention would start uniform
        bos_token_id=vocabulary.bos_token_id,
        eos_token_id=vocabulary.eos_token_id,
        pad_token_id=vocabulary.pad_token_id,
    )
    config.num_labels = 1
    torch.manual_seed(seed)
    return GPT2ForSequenceClassification(config)


@dataclass(frozen=True)
class LanguageBatch:
    """Dialogues whose answers are helpful, or wrong from some point on."""

    ids: Tensor
    """Tokens, int64 [n, length]."""
    answer: Tensor
    """The answers' tokens, bool [n, length]."""
    right: Tensor
    """Whether an answer is right up to and including a token, bool [n, length]."""


def _language_batch(vocabulary: Any, rng: random.Random, sees: str, n: int) -> LanguageBatch:
    """Return `n` dialogues of the train split, with a helpful answer in every second one."""
    openings, answered, helpful = [], [], []
    for i in range(n):
        scene, request = draw(rng)
        spoilt = wrong(rng, scene, request) if rng.random() < 0.7 else broken(rng, request.helpful)
        human = human_turn(request.prompt, scene.told() if sees == "scene" else None)
        openings.append(dialogue(human, ""))
        answered.append(dialogue(human, spoilt if i % 2 else request.helpful))
        helpful.append(dialogue(human, request.helpful))
    starts = [len(row) for row in vocabulary(openings)["input_ids"]]
    rows = [row[:_POSITIONS] for row in vocabulary(answered)["input_ids"]]
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    answer, right = torch.zeros(2, *ids.shape, dtype=torch.bool)
    for i, (row, best) in enumerate(zip(rows, vocabulary(helpful)["input_ids"], strict=True)):
        differ = (at for at, (one, other) in enumerate(zip(row, best, strict=False)) if one != other)
        same = next(differ, min(len(row), len(best)))
        answer[i, starts[i] : len(row)] = True
        right[i, starts[i] : same] = True
        if same == len(row) < len(best):  # a truncated answer is not right at its end
            right[i, len(row) - 1] = False
    return LanguageBatch(ids, answer, right)


def save_base(folder: Path, recipe: Recipe, seed: int, sees: str = "scene") -> None:
    """Stage 1: train a small GPT-2 on the testbed's language, and save it with its tokenizer."""
    vocabulary = tokenizer()
    model = untrained(vocabulary, recipe, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.base_lr, weight_decay=0.0)
    rng = random.Random(f"language {seed}")
    with Progress("language", recipe.base_steps) as progress:
        for step in range(recipe.base_steps):
            batch = _language_batch(vocabulary, rng, sees, recipe.batch_size)
            set_lr(optimizer, recipe.base_lr, step, recipe.base_steps, recipe.base_steps // 20)
            optimizer.zero_grad(set_to_none=True)
            _language_loss(model, batch).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            progress.advance(1)
    with quiet(), atomic_in(folder, "the model") as draft:
        model.save_pretrained(draft)
        vocabulary.save_pretrained(draft)


def _language_loss(model: GPT2ForSequenceClassification, batch: LanguageBatch) -> Tensor:
    """Return half the cross-entropy of the helpful answers' tokens, plus that of being right so far."""
    hidden = model.transformer(batch.ids, attention_mask=torch.ones_like(batch.ids)).last_hidden_state
    helpful = batch.answer[::2, 1:]
    logits = hidden[::2, :-1][helpful] @ model.transformer.wte.weight.T
    language = cross_entropy(logits, batch.ids[::2, 1:][helpful])
    right = model.score(hidden)[..., 0][batch.answer]
    return 0.5 * language + binary_cross_entropy_with_logits(right, batch.right[batch.answer].float())


def build(out: Path, *, sees: Literal["scene", "text"], seed: int, recipe: Recipe) -> dict[str, Any]:
    """Create the base and the pairs, and train; `out` gets the model and `reward.json`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a different order of summation would change the weights
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
                lr=recipe.lr,
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
