"""Give layeralign checkpoints, adapters, judges and commands with random changes.

    python benchmarks/faults/random_changes.py --minutes 60 > benchmarks/results/random_changes.md
    python benchmarks/faults/random_changes.py --only judges --seed 7 --first 41 --tries 1     # one of them again

A change sets, adds or removes one to three values in one JSON file of a good input, or gives a command odd flags. The command
then works, or refuses in one sentence with exit code 1, in 10 s of processor time and in 1 GiB of memory beyond a good
input. Whatever does not hold is printed, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from hostile import BYTES, SCAN, SECONDS, WAIT, Outcome, attempt, kinds  # which also finds the tests

import drawn
import recent
import tiny
from layeralign.cli import main as layeralign_cli

TINY = (
    "llava",
    "llava_next",
    "llava_onevision",
    "internvl",
    "paligemma",
    "gemma3",
    "idefics3",
    "qwen2_5_vl",
    "qwen3_vl",
    "mllama",
)
RECENT = (
    "qwen3_5",
    "qwen3_vl_moe",
    "gemma4",
    "glm46v",
    "granite4_vision",
    "kosmos2",
    "blip2",
    "instructblip",
    "idefics",
    "idefics2",
)
GUARD_KINDS = ("qwen3guard", "wildguard", "llama-guard-3", "nemotron-safety", "harmbench", "granite-guardian")
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 7, 33, 1000, 10**6, 2**63, 10**20, -(10**20), 1.5, 0.0, -0.5, 1e-9, 1e30, float("nan"),
    "", "x", "../x", "/dev/zero", "bfloat16", "eager", "default", "\x1b[31m", "é" * 5000, [], [1], [0, 0], ["x"], [[1]], {}, {"a": 1},
)  # fmt: skip
ADDED = (
    "max_position_embeddings", "num_labels", "id2label", "problem_type", "rope_scaling", "rope_parameters", "sliding_window",
    "layer_types", "attn_implementation", "quantization_config", "use_cache", "pad_token_id", "eos_token_id", "bos_token_id",
    "tie_word_embeddings", "dtype", "torch_dtype", "architectures", "model_type", "is_decoder", "output_hidden_states",
    "pruned_heads", "hidden_act", "model_max_length", "padding_side", "truncation_side", "add_bos_token", "tokenizer_class",
    "processor_class", "image_processor_type", "chat_template", "extra_special_tokens", "added_tokens_decoder", "max_length",
    "num_beams", "cache_implementation", "compile_config", "stop_strings", "bad_words_ids", "auto_map", "vocab_file",
)  # fmt: skip
WORDS = (
    "", "0", "-1", "1", "2", "nan", "inf", "1e400", "9" * 20, "1.5", "x", "/dev/null", "/dev/zero", "/", ".", "..", "/nowhere/x",
    "a" * 5000, "é\u2028", "1,2", "1..3", "[]", "{}", "~", "~nobody/x", "-", "--", "\x1b[31m", "run", "model", "given", "cases.jsonl",
    "picture.png", "run/run.sqlite", "all", "default", "http://127.0.0.1:9", "http://[::1", "http://u:k@h", "m@http://127.0.0.1:9/v1",
    "json", "true", "None", "2020-01-01", "cpu", "cuda:7", "mps", "auto", "4bit", "testbed", "testbed:dev", "refusal", "oracle", "%s",
    "a=b", "../run", "'", '"', "\\", "C:\\x", "1e3", "1_000", "0x10", " 1 ", "１",
)  # fmt: skip
COMMANDS = {
    "scan": ["--model", "model", "--cases", "cases.jsonl", "--out", "new", *SCAN], "judge": ["run", "--judge", "refusal"],
    "summary": ["run"], "calibrate": ["run", "--judge", "refusal", "--out", "o.json"], "label": ["run", "--out", "o.jsonl"], "card": ["run"], "check": ["model", "--against", "run"], "compare": ["run", "kept"],
    "export": ["run", "--out", "o.jsonl"], "figure": ["run", "--out", "o.csv"], "gate": ["run", "--policy", "policy.yaml"],
    "report": ["run", "--out", "o.html"], "verify": ["run"], "cases": ["cases.jsonl"], "inspect": ["--model", "model"],
    "doctor": ["--model", "model"], "plan": ["--model", "model", "--cases", "cases.jsonl"],
    "reward": ["train", "--pairs", "pairs.jsonl", "--base", "judges/coherence gpt2", "--out", "new"],
    "align": ["--model", "model", "--cases", "cases.jsonl", "--exits", "1", "--out", "new", "--method", "consistency", "--steps", "1"],
    "transfer": ["--model", "model", "--cases", "cases.jsonl", "--test", "cases.jsonl", "--exits", "1", "--out", "new",
                 "--method", "consistency", "--steps", "1"],
}  # fmt: skip
"""Good arguments of each command that ends by itself and builds nothing large."""
COMMAND = "command.json"
HELD = {0, 1, 2, 3}
"""Exit codes that a command may have."""
SENTENCE = re.compile(r"^layeralign: \S", re.MULTILINE)
"""A refusal."""


@dataclass(frozen=True)
class Kind:
    """What is changed at random, and the command that gets it.

    Attributes:
        goods: folders with good inputs.
        ask: gives an input, in the folder `given`, to a command.
        change: changes the input in `given`, and says what it did.
    """

    goods: Sequence[Path]
    ask: Callable[[Path, Path], int]
    change: Callable[[random.Random, Path], object]


def changed(rng: random.Random, folder: Path) -> str:
    """Change one to three values in a JSON file of `folder`; return what was changed."""
    files = sorted(file for file in folder.glob("*.json") if ".index." not in file.name)
    config = [file for file in files if file.name.endswith("config.json")]
    file = rng.choice(files + 3 * config)
    content, done = json.loads(file.read_text()), [file.name]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if isinstance(content, dict) and file in config and rng.random() < 0.25:
            key, value = rng.choice(ADDED), rng.choice(VALUES)
            content[key] = value
            done.append(f"{key} = {value!r:.60}")
        elif places := list(paths(content)):
            done.append(_set(rng, content, rng.choice(places)))
    file.write_text(json.dumps(content))
    return "; ".join(done)


def paths(content: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of each value; of a list, of the first four."""
    inner = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content[:4])
        if isinstance(content, list)
        else ()
    )
    for key, value in inner:
        yield (*before, key)
        yield from paths(value, (*before, key))


def _set(rng: random.Random, content: Any, place: tuple[Any, ...]) -> str:
    *before, last = place
    for key in before:
        content = content[key]
    if rng.random() < 0.15:
        del content[last]
        return f"{place} removed"
    old, value = content[last], rng.choice(VALUES)
    if isinstance(old, int | float) and not isinstance(old, bool) and rng.random() < 0.5:
        value = rng.choice((old * 2, old + 1, old - 1, old // 2, -old, old * 1000))
    content[last] = value
    return f"{place} = {value!r:.60}"


def with_odd_flags(rng: random.Random, folder: Path) -> str:
    """Give the command in `folder` one to three more or other flags, some of them odd; return it."""
    words = json.loads((folder / COMMAND).read_text())
    flags = FLAGS[words[0]]
    for _ in range(rng.choice((1, 1, 2, 3))):
        flag = rng.choice(list(flags))
        value = rng.choice((rng.random() < 0.7 and flags[flag]) or WORDS)
        if flag in words[:-1] and rng.random() < 0.7:
            words[words.index(flag) + 1] = value
        else:
            words += [flag, value] if flags[flag] or rng.random() < 0.1 else [flag]
    if rng.random() < 0.1:
        words[rng.randrange(1, len(words))] = rng.choice(WORDS)
    (folder / COMMAND).write_text(json.dumps(words))
    return " ".join(words)


NUMBERS = ("0", "1", "2", "3", "7", "-1", "0.5", "0.05", "1e-9", "2.5", "300", "nan", "inf")
FLAGS: dict[str, dict[str, Sequence[str]]] = {}
"""Command -> flag -> words of its type; no words for a flag without a value."""


def flags_in(text: str) -> dict[str, Sequence[str]]:
    """The flags in a command's help, as in `FLAGS`."""
    flat = re.sub(r"[\s│╭╮╰╯─]+", " ", text)
    found: dict[str, Sequence[str]] = {"--unknown": WORDS}
    for flag, about in re.findall(r"(--[a-z][a-z0-9-]+)((?:(?!--).)*)", flat):
        kind, choices = re.match(r"(?: -\w)? ([A-Z]+)\b", about), re.search(r"\[choices: ([^]]*)\]", about)
        words = NUMBERS if kind and kind[1] in ("INT", "FLOAT") else WORDS if kind else ()
        found.setdefault(flag, choices[1].split(", ") if choices else words)
    return {flag: words for flag, words in found.items() if flag not in ("--debug", "--ray")}


def made(work: Path) -> dict[str, Kind]:
    """Make the good inputs."""
    known = kinds(work)  # which makes a model and an adapter
    judges = list(_judges(work / "judges"))
    _files(work)
    scan = ["scan", "--model", "model", "--cases", "cases.jsonl", "--max-new-tokens", "20", "--out", "run"]
    assert attempt(lambda: layeralign_cli(scan), work).code == 0
    shutil.copytree(work / "run", work / "kept")
    for flag in ("--out", "--import"):
        label = ["label", "run", flag, "labels.jsonl"]
        assert attempt(lambda words=label: layeralign_cli(words), work).code == 0
        labels = (work / "labels.jsonl").read_text().replace("null", '"safe"', 2).replace("null", '"unsafe"')
        (work / "labels.jsonl").write_text(labels)
    for name in COMMANDS:
        words = [name, *(["train"] if name == "reward" else []), "--help"]
        assert attempt(lambda words=words: layeralign_cli(words), work).code == 0
        FLAGS[name] = flags_in((work / "said").read_text())

    def judge(folder: Path, good: Path) -> int:
        shutil.copytree(work / "run", folder / "run")
        kind = good.name.partition(" ")[0]
        return layeralign_cli(["judge", str(folder / "run"), "--judge", f"{kind}:{folder / 'given'}"])

    def run(folder: Path, _: Path) -> int:
        for name in GIVEN:
            copy = shutil.copytree if (work / name).is_dir() else shutil.copy
            copy(work / name, folder / name)
        return layeralign_cli(json.loads((folder / "given" / COMMAND).read_text()))

    scans = {name: lambda at, _, name=name: known[name].command(at) for name in ("checkpoints", "adapters")}
    return {
        "checkpoints": Kind([*_models(work / "models")], scans["checkpoints"], changed),
        "adapters": Kind([work / "adapter"], scans["adapters"], changed),
        "judges": Kind(judges, judge, changed),
        "commands": Kind([*_commands(work / "commands")], run, with_odd_flags),
    }


GIVEN = (
    "model",
    "adapter",
    "run",
    "kept",
    "judges",
    "picture.png",
    "cases.jsonl",
    "pairs.jsonl",
    "policy.yaml",
)
"""What a command finds in its folder."""


def _files(work: Path) -> None:
    """Write a picture, cases, pairs and a policy."""
    (work / "picture.png").write_bytes(drawn.KINDS["text.png"][0])
    of = ("harmful", "benign")
    cases = [
        {"id": f"a{i}", "prompt": f"what is {i}", "kind": of[i % 2], "image": "picture.png"} for i in range(4)
    ]
    pairs = [{end: f"\n\nHuman: {i}\n\nAssistant: {end}" for end in ("chosen", "rejected")} for i in range(8)]
    for name, rows in (("cases", cases), ("pairs", pairs)):
        (work / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (work / "policy.yaml").write_text("rules:\n  - {metric: asr, exits: all, upper_bound: 0.9}\n")


def _commands(work: Path) -> Iterator[Path]:
    for name, words in COMMANDS.items():
        (work / name).mkdir(parents=True)
        (work / name / COMMAND).write_text(json.dumps([name, *words]))
        yield work / name


def _models(work: Path) -> Iterator[Path]:
    for save, names in ((tiny.save, TINY), (recent.save, RECENT)):
        for name in names:
            save(name, work / name)
            yield work / name


def _judges(work: Path) -> Iterator[Path]:
    """Save judges' models in folders of the judge's name, and of the model's after a blank."""
    for kind in GUARD_KINDS:
        yield Path(tiny.guard(kind, work / kind))
    for kind in tiny.CLASSIFIERS:
        yield Path(tiny.classifier(kind, work / f"toxicity {kind}"))
    yield Path(tiny.language_model(work / "coherence gpt2"))


def wrong(outcome: Outcome, more: int, *, own: bool) -> str:
    """Why an outcome does not hold; empty if it does.

    Args:
        outcome: the outcome.
        more: its memory beyond a good input's, in bytes.
        own: whether the user asked for the work, as for 1,000 epochs, which may take its time.
    """
    if outcome.code is None:
        return f"killed after {WAIT:.0f} s, or by the system"
    if "Traceback" in outcome.said or "a bug in layeralign" in outcome.said:
        return "a bug"
    if outcome.code not in HELD or (outcome.code == 1 and not SENTENCE.search(outcome.said)):
        return f"no sentence, with exit code {outcome.code}"
    if "\x1b[31m" in outcome.said or len(outcome.said.strip().rpartition("\n")[2]) > 1100:
        return "a sentence that is long, or not inert"
    if outcome.seconds > SECONDS and not (own and outcome.code == 0):
        return f"{outcome.seconds:.1f} s"
    return f"{more >> 20} MiB" if more > BYTES else ""


def tried(name: str, kind: Kind, tries: Iterator[int], seed: int, work: Path) -> int:
    """Try changes until `tries` ends, print their row; return how many do not hold."""
    counts, bad, longest, most = Counter[int | None](), 0, 0.0, 0
    bases = {good: _asked(kind, good, work / "good", None)[1] for good in kind.goods}
    failed = {good.name: base.said for good, base in bases.items() if base.code not in HELD - {1}}
    assert not failed, failed
    for number in tries:
        good = kind.goods[number % len(kind.goods)]
        rng = random.Random(f"{name} {seed} {number}")
        done, outcome = _asked(kind, good, work / f"{name} {number}", rng)
        counts[outcome.code] += 1
        more = outcome.memory - bases[good].memory
        longest, most = max(longest, outcome.seconds), max(most, more)
        if why := wrong(outcome, more, own=name == "commands"):
            bad += 1
            said = outcome.said[-300:].strip()
            print(
                f"FAILED {name} {number}, {good.name}: {done}: {why}; {said!r}", file=sys.stderr, flush=True
            )
    total, worked = counts.total(), sum(counts[code] for code in HELD - {1})
    print(
        f"| {name} | {total} | {worked} | {total - worked - bad} | {bad} | {longest:.1f} | {most >> 20} |",
        flush=True,
    )
    return bad


def _asked(kind: Kind, good: Path, folder: Path, rng: random.Random | None) -> tuple[object, Outcome]:
    """Give an input to its command, changed at random; or as it is, without `rng`."""
    shutil.copytree(good, folder / "given")
    done = rng and kind.change(rng, folder / "given")
    outcome = attempt(lambda: kind.ask(folder, good), folder)
    shutil.rmtree(folder)
    return done, outcome


def numbers(first: int, tries: int, seconds: float) -> Iterator[int]:
    """Yield `tries` numbers from `first` on; for 0, as many as `seconds` allow."""
    end, number = time.monotonic() + seconds, first
    while number - first < tries if tries else time.monotonic() < end:
        yield number
        number += 1


def main() -> int:
    """Try everything, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20, help="time for all kinds together")
    parser.add_argument("--only", nargs="+", default=[""], metavar="KIND", help="parts of the names of kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first change")
    parser.add_argument(
        "--tries", type=int, default=0, help="changes of each kind; 0 for as many as the time allows"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"# Random changes\n\n{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores: "
        f"`python {' '.join(['benchmarks/faults/random_changes.py', *sys.argv[1:]])}`\n\n"
        "A change holds if the command works, or refuses it in one sentence; in 10 s of processor time, and in 1 GiB beyond a good "
        "input. What a command does with good flags may take longer.\n\n| changed | tried | worked | refused in one sentence | did not hold | longest, s of processor time | most memory, MiB "
        "beyond a good input |\n|---|---|---|---|---|---|---|"
    )
    bad = 0
    with TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ["HOME"] = folder  # some odd words are `~`
        chosen = {name: kind for name, kind in made(work).items() if any(part in name for part in given.only)}
        for name, kind in chosen.items():
            tries = numbers(given.first, given.tries, 60 * given.minutes / len(chosen))
            bad += tried(name, kind, tries, given.seed, work)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
