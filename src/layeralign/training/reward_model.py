"""Train a reward model on preference pairs: Bradley and Terry's loss, stop and resume, held-out accuracy.

Every random draw is a function of (seed, step), so the step number is the whole random state: a run
that was stopped, even by force, ends in the same weights as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from layeralign._util import files
from layeralign._util.progress import Progress
from layeralign._util.text import has_lone_surrogate, json_of, printable
from layeralign.cases.dialogue import ASSISTANT
from layeralign.errors import LayeralignError
from layeralign.rewards.classifier import Classifier, Row
from layeralign.stats.proportions import wilson
from layeralign.vlm import checkpoint as checkpoints
from layeralign.vlm.identity import versions
from layeralign.vlm.load import own_device, quiet

RECORD = "reward.json"
"""What was trained how, and how well; written last, so its presence says that training is finished."""
_CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Pair:
    """Two dialogues that differ in their last answer; `prompt` is what they share before it."""

    prompt: str
    chosen: str
    rejected: str


def bradley_terry(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Mean of -log sigmoid(r(x, y_w) - r(x, y_l)) (Bradley and Terry 1952; paper, "Reward model").

    Args:
        chosen: rewards of the better answers, float32 [n].
        rejected: rewards of the worse answers, float32 [n].

    Returns:
        A scalar, at least 0; log 2 where nothing is told apart.
    """
    return -F.logsigmoid(chosen - rejected).mean()


def train_reward(
    pairs: str | Path,
    base: str | Path,
    out: str | Path,
    *,
    epochs: int = 1,
    batch_size: int = 32,
    rate: float = 1e-5,
    seed: int = 0,
    held_out: float = 0.05,
    sees: Literal["text", "scene"] = "text",
    save_every: int = 200,
) -> dict[str, Any]:
    """Train a reward model, or go on where an earlier call with the same settings was stopped.

    Args:
        pairs: JSONL in HH-RLHF's form; each line an object with the dialogues `chosen` and `rejected`.
        base: a checkpoint folder or a hub id; where it has no scalar head, a fresh one is put on.
        out: folder for the model (a normal transformers checkpoint), its tokenizer and `reward.json`.
        epochs: passes over the pairs.
        batch_size: pairs per step.
        rate: AdamW's highest learning rate (TRL's reward example uses 1e-5), reached after a linear
            warm-up over the first twentieth of the steps, then falling linearly to nothing.
        seed: of a fresh head, the order of the pairs and dropout.
        held_out: share of the prompts, by content hash, that are not trained on.
        sees: whether the pairs' human turns tell the picture in words (`scene`); recorded in
            config.json as `layeralign_sees`, and what `load_reward` then does.
        save_every: steps between checkpoints.

    Returns:
        What `reward.json` holds: settings, hashes, versions, and held-out accuracy with its interval.

    Raises:
        LayeralignError: something that was given is wrong; the message says what and where.
    """
    settings: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "rate": rate,
        "seed": seed,
        "held_out": held_out,
        "sees": sees,
    }
    _check(settings, save_every)
    source, folder = Path(pairs), Path(out)
    read, identical = read_pairs(source)
    learned, kept = split(read, held_out)
    if not learned:
        raise LayeralignError(f"pairs {source}: held_out {held_out} leaves no pair to train on")
    found = checkpoints.find(base)
    identity = {
        "format": 1,
        "settings": settings,
        "base": {"name": Path(found.name).name if found.revision is None else found.name}
        | {"revision": found.revision, "files": found.hashes},
        "pairs": {
            "file": source.name,
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
            "trained": len(learned),
            "held_out": len(kept),
            "identical": identical,
        },
    }
    if (done := _finished(folder, identity)) is not None:
        return done
    ours = (folder / _CHECKPOINT).exists() or not (folder / "config.json").exists()
    if folder.exists() and not (folder.is_dir() and ours):
        raise LayeralignError(f"out {folder}: is a file or holds another model; give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=devices):
        classifier = _start(found, seed, sees)
        _train(classifier, learned, identity, folder / _CHECKPOINT, save_every)
    record = identity | {"held_out": accuracy(classifier, kept, batch_size), "versions": versions()}
    with quiet():
        classifier.model.save_pretrained(folder)
        classifier.names.save_pretrained(folder)
    files.write_json(folder / RECORD, record)
    (folder / _CHECKPOINT).unlink(missing_ok=True)
    return record


def _check(settings: dict[str, Any], save_every: int) -> None:
    whole = {"epochs": settings["epochs"], "batch_size": settings["batch_size"], "save_every": save_every}
    for name, value in whole.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise LayeralignError(f"{name} is {value!r}; expected a whole number of at least 1")
    if not -(2**63) <= settings["seed"] < 2**63:
        raise LayeralignError(f"seed {settings['seed']}: expected {-(2**63)} to {2**63 - 1}")
    if not 0 < settings["rate"] < 1:
        raise LayeralignError(
            f"rate is {settings['rate']!r}; expected a number between 0 and 1, such as 1e-5"
        )
    if not 0 <= settings["held_out"] < 1:
        raise LayeralignError(f"held_out is {settings['held_out']!r}; expected a share from 0 to below 1")
    if settings["sees"] not in ("text", "scene"):
        raise LayeralignError(f"sees is {settings['sees']!r}; expected text or scene")


def read_pairs(file: Path) -> tuple[list[Pair], int]:
    """Read HH-RLHF's JSONL; also how many lines hold the same dialogue twice, which teach nothing.

    Raises:
        LayeralignError: names the file, the line and the field that is wrong.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LayeralignError(f"pairs {file}: cannot be read as UTF-8 text ({error})") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    read = [_pair(line, f"{file}:{number}") for number, line in numbered]
    differ = [pair for pair in read if pair.chosen != pair.rejected]
    if not differ:
        raise LayeralignError(
            f"pairs {file}: holds no pair of different dialogues; expected one JSON object per line"
        )
    return differ, len(read) - len(differ)


def _pair(line: str, where: str) -> Pair:
    row = json_of(line, where)
    if not isinstance(row, dict):
        raise LayeralignError(f"{where}: expected a JSON object, found {type(row).__name__}")
    for name in ("chosen", "rejected"):
        if name not in row:
            raise LayeralignError(f"{where}: field {name!r} is missing")
        if not isinstance(row[name], str):
            raise LayeralignError(
                f"{where}: field {name!r} is {printable(repr(row[name]), 60)}; expected text"
            )
        if has_lone_surrogate(row[name]):
            raise LayeralignError(f"{where}: field {name!r} holds half a character (a lone surrogate)")
        if ASSISTANT not in row[name]:
            raise LayeralignError(
                f"{where}: field {name!r} has no answer; expected a dialogue of turns that begin with "
                r"'\n\nHuman:' and '\n\nAssistant:'"
            )
    shared = os.path.commonprefix([row["chosen"], row["rejected"]])  # noqa: RUF071 - of texts
    prompt, turn, _ = shared.rpartition(ASSISTANT)
    if not turn:
        raise LayeralignError(
            f"{where}: 'chosen' and 'rejected' differ before their first answer; expected the same "
            "request with two answers"
        )
    return Pair(prompt, row["chosen"], row["rejected"])


def split(pairs: Sequence[Pair], held_out: float) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on and pairs to keep out; all pairs of one prompt fall on the same side."""
    learned: list[Pair] = []
    kept: list[Pair] = []
    for pair in pairs:
        share = int.from_bytes(hashlib.sha256(pair.prompt.encode(errors="replace")).digest()[:4]) / 2**32
        (kept if share < held_out else learned).append(pair)
    return learned, kept


def _finished(folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    file = folder / RECORD
    if not file.is_file():
        return None
    try:
        record: dict[str, Any] = dict(json.loads(file.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise LayeralignError(f"{file}: is no record of reward training; give another folder") from error
    _same({name: record.get(name) for name in identity}, identity, file)
    return record


def _same(there: dict[str, Any], here: dict[str, Any], file: Path) -> None:
    for name, value in here.items():
        if there.get(name) != value:
            raise LayeralignError(
                f"{file}: was made with other {name} ({printable(str(there.get(name)), 100)}; now "
                f"{printable(str(value), 100)}); give the same, or another folder"
            )


def _start(found: checkpoints.Checkpoint, seed: int, sees: str) -> Classifier:
    """The base with a scalar head, on the first GPU or the CPU."""
    torch.manual_seed(seed)
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    with quiet():
        try:
            names: Any = AutoTokenizer.from_pretrained(found.path, **options)
            options |= {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
            made: Any = AutoModelForSequenceClassification.from_pretrained(
                found.path, num_labels=1, **options
            )
        except Exception as error:  # transformers raises many kinds for a broken checkpoint
            reason = printable(str(error), 200) or type(error).__name__
            raise LayeralignError(f"base {found.name}: cannot be loaded ({reason})") from error
    model, report = made
    if not hasattr(model, "score"):
        raise LayeralignError(f"base {found.name}: is no decoder; expected a model such as GPT-2")
    if lacking := sorted(set(report["missing_keys"]) - {"score.weight"}):
        raise LayeralignError(f"base {found.name}: lacks {len(lacking)} weights, {lacking[0]} among them")
    if names.pad_token_id is None:
        names.pad_token = names.eos_token
    model.config.pad_token_id = names.pad_token_id
    model.config.layeralign_sees = sees
    return Classifier(model.to(own_device()), names)


def _train(
    classifier: Classifier, pairs: Sequence[Pair], identity: dict[str, Any], file: Path, save_every: int
) -> None:
    settings, model = identity["settings"], classifier.model
    chosen = classifier.rows([pair.chosen for pair in pairs])
    rejected = classifier.rows([pair.rejected for pair in pairs])
    size, seed = settings["batch_size"], settings["seed"]
    per_epoch = -(-len(pairs) // size)
    steps = per_epoch * settings["epochs"]
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings["rate"], weight_decay=0.0)
    done = _restore(file, model, optimiser, identity)
    model.train()
    with Progress("reward", steps, done) as progress:
        for step in range(done, steps):
            torch.manual_seed(_draw(seed, "dropout", step))
            epoch, at = divmod(step, per_epoch)
            order = torch.Generator().manual_seed(_draw(seed, "order", epoch))
            batch = torch.randperm(len(pairs), generator=order)[at * size : (at + 1) * size].tolist()
            for group in optimiser.param_groups:
                group["lr"] = settings["rate"] * schedule(step, steps)
            _step(classifier, optimiser, [chosen[i] for i in batch], [rejected[i] for i in batch], step)
            progress.advance(1)
            if (step + 1) % save_every == 0 or step + 1 == steps:
                _save(file, model, optimiser, step + 1, identity)
    model.eval()


def _step(
    classifier: Classifier,
    optimiser: torch.optim.Optimizer,
    chosen: Sequence[Row],
    rejected: Sequence[Row],
    step: int,
) -> None:
    scores = classifier.scores([*chosen, *rejected])
    loss = bradley_terry(scores[: len(chosen)], scores[len(chosen) :])
    if not torch.isfinite(loss):
        raise LayeralignError(
            f"reward training: the loss is {loss.item()} at step {step}; lower the rate (--rate)"
        )
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(classifier.model.parameters(), 1.0)
    optimiser.step()


def _draw(seed: int, what: str, number: int) -> int:
    """A seed for one draw, a function of its arguments alone."""
    return int.from_bytes(hashlib.sha256(f"{seed} {what} {number}".encode()).digest()[:7])


def schedule(step: int, steps: int) -> float:
    """Share of the rate: up over the first twentieth of the steps, then down to nothing."""
    warm = max(1, steps // 20)
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm))


def _save(
    file: Path, model: Any, optimiser: torch.optim.Optimizer, step: int, identity: dict[str, Any]
) -> None:
    """Weights and AdamW's two means as safetensors, replaced in one stroke."""
    tensors = {}
    for name, weight in model.named_parameters():
        tensors[f"weight {name}"] = weight.detach().contiguous()
        for part in ("exp_avg", "exp_avg_sq"):
            tensors[f"{part} {name}"] = optimiser.state[weight][part].contiguous()
    with files.atomic(file) as draft:
        save_file(tensors, draft, {"step": str(step), "identity": json.dumps(identity)})


def _restore(file: Path, model: Any, optimiser: torch.optim.Optimizer, identity: dict[str, Any]) -> int:
    """Put a checkpoint's state back; returns how many steps were done."""
    if not file.is_file():
        return 0
    try:
        with safe_open(file, "pt") as opened:
            about = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no dict
        step, there = int(about["step"]), json.loads(about["identity"])
    except Exception as error:  # safetensors has an error type of its own
        raise LayeralignError(
            f"{file}: is no checkpoint of reward training; delete it to start anew"
        ) from error
    _same(there, identity, file)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(tensors[f"weight {name}"])
            optimiser.state[weight] = {"step": torch.tensor(float(step))} | {
                part: tensors[f"{part} {name}"].to(weight.device) for part in ("exp_avg", "exp_avg_sq")
            }
    return step


@torch.no_grad()
def accuracy(classifier: Classifier, pairs: Sequence[Pair], batch_size: int) -> dict[str, Any]:
    """Share of pairs whose better answer is scored higher, with Wilson's 95 % interval; ties are misses."""
    hits = 0
    for at in range(0, len(pairs), batch_size):
        part = pairs[at : at + batch_size]
        scores = classifier.scores(classifier.rows([p.chosen for p in part] + [p.rejected for p in part]))
        hits += int((scores[: len(part)] > scores[len(part) :]).sum())
    low, high = wilson(hits, len(pairs))
    return {"n": len(pairs), "accuracy": hits / len(pairs) if pairs else None, "low": low, "high": high}
