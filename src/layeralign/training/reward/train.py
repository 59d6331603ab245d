"""Training of a reward model on preference pairs: Bradley-Terry loss, resumable, held-out accuracy.

Every random draw is a function of (seed, step), so the step number is the whole random state. A training that
was stopped, even by a kill, ends in the same weights as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from layeralign._util import files
from layeralign._util.progress import Progress
from layeralign._util.quiet import quiet
from layeralign.errors import LayeralignError
from layeralign.rewards.classifier import Classifier
from layeralign.stats.proportions import wilson
from layeralign.training.reward.pairs import Pair, read_pairs, split
from layeralign.training.state import checkpoint, record
from layeralign.training.state.checkpoint import State
from layeralign.training.state.schedule import set_lr
from layeralign.vlm import checkpoint as checkpoints
from layeralign.vlm.load import own_device, pretrained
from layeralign.vlm.load import tokenizer as load_tokenizer

RECORD = "reward.json"
"""Settings, data and held-out accuracy; written last, so a folder with it holds a finished training."""


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Mean of -log sigmoid(r(x, y_w) - r(x, y_l)) (Bradley and Terry 1952; paper, "Reward model").

    Args:
        chosen: rewards of the better answers, float32 [n].
        rejected: rewards of the worse answers, float32 [n].

    Returns:
        A scalar, at least 0; log 2 if all rewards are equal.
    """
    return -F.logsigmoid(chosen - rejected).mean()


def train_reward(
    pairs: str | Path,
    base: str | Path,
    out: str | Path,
    *,
    epochs: int = 1,
    batch_size: int = 32,
    lr: float = 1e-5,
    seed: int = 0,
    held_out: float = 0.05,
    sees: Literal["text", "scene"] = "text",
    save_every: int = 200,
) -> dict[str, Any]:
    """Train a reward model, or resume an earlier call with the same settings that was stopped.

    Args:
        pairs: JSONL in HH-RLHF's form; each line is an object with the dialogues `chosen` and `rejected`.
        base: a checkpoint folder or a hub id; a base without a scalar head gets a new one.
        out: folder for the model (a normal transformers checkpoint), its tokenizer and `reward.json`.
        epochs: passes over the pairs.
        batch_size: pairs per step.
        lr: highest learning rate of AdamW (TRL's reward example uses 1e-5): linear warm-up over a twentieth
            of the steps, then linear to zero.
        seed: of a new head, the order of the pairs and dropout.
        held_out: share of the prompts, by content hash, that are not trained on.
        sees: `scene` if the pairs' human turns describe the picture in words. It is recorded in
            config.json as `layeralign_sees`, and `load_reward` follows it.
        save_every: steps between checkpoints.

    Returns:
        The content of `reward.json`: settings, hashes, versions, and held-out accuracy with its interval.

    Raises:
        LayeralignError: an argument is wrong; the message says which and where.
    """
    settings: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "held_out": held_out,
        "sees": sees,
    }
    _check(settings, save_every)
    source, folder = Path(pairs), Path(out)
    unchanged = files.watched([source], f"pairs {source}")
    read, identical = read_pairs(source)
    train, test = split(read, held_out)
    if not train:
        raise LayeralignError(f"pairs {source}: held_out {held_out} leaves no pair to train on")
    found = checkpoints.find(base)
    made = {
        "format": 1,
        "settings": settings,
        "base": {"name": Path(found.name).name if found.revision is None else found.name}
        | {"revision": found.revision, "files": found.hashes},
        "pairs": {
            "file": source.name,
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
            "trained": len(train),
            "held_out": len(test),
            "identical": identical,
        },
    }
    unchanged()
    if (done := record.read_same(folder / RECORD, made)) is not None:
        return done
    file = folder / checkpoint.FILE
    if folder.exists() and not (folder.is_dir() and (file.exists() or not (folder / "config.json").exists())):
        raise LayeralignError(f"out {folder}: is a file or holds another model; use another folder")
    with files.holding(folder, f".{RECORD}.lock", f"out {folder}"):
        return _trained(found, (train, test), made, folder, save_every)


def _trained(
    found: checkpoints.Checkpoint,
    pairs: tuple[list[Pair], list[Pair]],
    made: dict[str, Any],
    folder: Path,
    save_every: int,
) -> dict[str, Any]:
    """Train on the first pairs, measure on the second ones, and write the model and its record."""
    settings, file = made["settings"], folder / checkpoint.FILE
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        classifier = _load_base(found, settings["seed"], settings["sees"])
        _train(classifier, pairs[0], made, file, save_every)
    accuracy = held_out_accuracy(classifier, pairs[1], settings["batch_size"])
    with quiet(), files.atomic_in(folder, "the model") as draft:
        classifier.model.save_pretrained(draft)
        classifier.tokenizer.save_pretrained(draft)
    written = record.write(folder / RECORD, made | {"held_out": accuracy})
    file.unlink(missing_ok=True)
    return written


def _check(settings: dict[str, Any], save_every: int) -> None:
    whole = {"epochs": settings["epochs"], "batch_size": settings["batch_size"], "save_every": save_every}
    for name, value in whole.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise LayeralignError(f"{name} is {value!r}; expected a whole number of at least 1")
    if not -(2**63) <= settings["seed"] < 2**63:
        raise LayeralignError(f"seed {settings['seed']}: expected {-(2**63)} to {2**63 - 1}")
    if not 0 < settings["lr"] < 1:
        raise LayeralignError(f"lr is {settings['lr']!r}; expected a number between 0 and 1, such as 1e-5")
    if not 0 <= settings["held_out"] < 1:
        raise LayeralignError(f"held_out is {settings['held_out']!r}; expected a share from 0 to below 1")
    if settings["sees"] not in ("text", "scene"):
        raise LayeralignError(f"sees is {settings['sees']!r}; expected text or scene")


def _load_base(found: checkpoints.Checkpoint, seed: int, sees: str) -> Classifier:
    """Load the base with a scalar head, on the first GPU or the CPU."""
    what = f"base {found.name}"
    tokenizer = load_tokenizer(found, what)
    torch.manual_seed(seed)
    model = pretrained(
        AutoModelForSequenceClassification, found, what, new={"score.weight"}, dtype=torch.float32,
        labels=1,
    )  # fmt: skip
    if not hasattr(model, "score"):
        raise LayeralignError(f"{what}: is not a decoder; expected a model such as GPT-2")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.layeralign_sees = sees
    return Classifier(model.to(own_device()), tokenizer)


def _train(
    classifier: Classifier, pairs: Sequence[Pair], made: dict[str, Any], file: Path, save_every: int
) -> None:
    settings, model = made["settings"], classifier.model
    chosen = classifier.rows([pair.chosen for pair in pairs])
    rejected = classifier.rows([pair.rejected for pair in pairs])
    size, seed = settings["batch_size"], settings["seed"]
    per_epoch = -(-len(pairs) // size)
    steps = per_epoch * settings["epochs"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["lr"], weight_decay=0.0)
    state = State(dict(model.named_parameters()), optimizer)
    done = checkpoint.restore(file, state, made)
    model.train()
    with Progress("reward", steps, done) as progress:
        for step in range(done, steps):
            torch.manual_seed(_seed(seed, "dropout", step))
            epoch, at = divmod(step, per_epoch)
            order = torch.Generator().manual_seed(_seed(seed, "order", epoch))
            batch = torch.randperm(len(pairs), generator=order)[at * size : (at + 1) * size].tolist()
            set_lr(optimizer, settings["lr"], step, steps, steps // 20)
            scores = classifier.scores([*(chosen[i] for i in batch), *(rejected[i] for i in batch)])
            loss = bradley_terry(scores[: len(batch)], scores[len(batch) :])
            if not torch.isfinite(loss):
                raise LayeralignError(
                    f"reward training: the loss is {loss.item()} at step {step}; use a lower --lr"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            progress.advance(1)
            if (step + 1) % save_every == 0 or step + 1 == steps:
                checkpoint.save(file, state, step + 1, made)
    model.eval()


def _seed(seed: int, name: str, number: int) -> int:
    """Return a seed for one draw, a function of the arguments alone."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name} {number}".encode()).digest()[:7])


@torch.no_grad()
def held_out_accuracy(classifier: Classifier, pairs: Sequence[Pair], batch_size: int) -> dict[str, Any]:
    """Return the share of pairs whose better answer scores higher, with Wilson's 95 % interval.

    Ties count as misses.
    """
    hits = 0
    for at in range(0, len(pairs), batch_size):
        part = pairs[at : at + batch_size]
        scores = classifier.scores(classifier.rows([p.chosen for p in part] + [p.rejected for p in part]))
        hits += int((scores[: len(part)] > scores[len(part) :]).sum())
    low, high = wilson(hits, len(pairs))
    return {"n": len(pairs), "accuracy": hits / len(pairs) if pairs else None, "low": low, "high": high}
