"""Try every image-text-to-text class of transformers, and write docs/coverage.md's table.

    python benchmarks/coverage_models.py [model_type ...]    # names: only print how these end

A tiny random model of each class is built from its default config, with narrow and few layers, and loaded as a user would.
A class without a family of its own has to pass the proof on a grey picture, and then the tests of a family
(tests/every_class.py). Needs torchvision and timm, which some classes of transformers want.
"""

import json
import os
import resource
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from coverage_tiny import CLASSES, made
from tables import ROOT, results, write
from transformers import AutoConfig

import tiny
from layeralign import LayeralignError
from layeralign._util.quiet import quiet
from layeralign.vlm.cost import flops
from layeralign.vlm.families.registry import NO_ENCODER, OWN
from layeralign.vlm.load import load, shape


def tried(kind: str, folder: Path) -> tuple[str, str]:
    """How a class ends before the tests of a family: its status, and the reason; a checkpoint of it is left in `folder`."""
    if kind in {family.family for family in OWN}:
        return "own family", ""
    if kind in NO_ENCODER:
        return "no tower", "its language model reads the patches itself"
    if kind in NOT_TRIED:
        return NOT_TRIED[kind]
    try:
        with quiet():
            tiny.save(kind, folder, lambda: made(kind))
    except Exception as error:
        return "not tried", f"no tiny model could be built ({type(error).__name__}: {error})"
    try:
        with quiet():
            load(folder)
    except LayeralignError as error:
        said = (
            str(error)
            .replace(str(folder), "MODEL")
            .removesuffix("; CONTRIBUTING explains how to add a family")
        )
        return "refused", said.partition("since it ")[2] or said
    return "proved", ""


def tested(models: Path) -> dict[str, tuple[str, str]]:
    """How the classes of the checkpoints in `models` end, by the tests of a family."""
    os.environ["LAYERALIGN_TINY"] = str(models)
    found: dict[str, dict[str, bool]] = {path.name: {} for path in models.iterdir()}
    for (name, kind), passed in results(["tests/every_class.py"]).items():
        found[kind][name] = passed
    ends = {}
    for kind, tests in found.items():
        failed = sorted(name for name, passed in tests.items() if not passed)
        ends[kind] = (
            "proved",
            ""
            if TRAINS in tests
            else "`align` refuses it: where there are experts, PEFT puts adapters elsewhere",
        )
        if failed or len(tests) < FEWEST_TESTS:
            ends[kind] = "not proved", f"fails tests of a family ({', '.join(failed) or 'some did not run'})"
    return ends


TRAINS = "an_adapter_trains_and_loads_and_touches_no_vision"
FEWEST_TESTS = 11
"""Of the 13 that run for a class; the one of deepstack and the one of an adapter may be skipped."""
NOT_TRIED: dict[str, tuple[str, str]] = {
    "chameleon": ("no tower", "convolutions turn the picture into tokens of a vocabulary (VQ-VAE)"),
    "emu3": ("no tower", "convolutions turn the picture into tokens of a vocabulary (VQ-VAE)"),
    "evolla": ("no tower", "reads proteins, no pictures"),
    "mistral4": ("no tower", "reads text only"),
    "fast_vlm": ("no tower", "its encoder is timm's FastViT, in stages of convolutions"),
    "gemma3n": ("no tower", "its encoder is timm's MobileNet, in stages of convolutions"),
    "udop": ("no tower", "embeds patches and words together, and reads both in one encoder"),
    "vision-encoder-decoder": ("no tower", "joins any encoder and decoder; there is no such model by itself"),
    "florence2": (
        "no tower",
        "its encoder is a DaViT, in stages of convolutions and of blocks whose width grows",
    ),
    "inkling_mm_model": ("no tower", "each of its encoder's layers folds patches into another width"),
    "instructblipvideo": ("refused", "reads videos, and layeralign pictures"),
    "pi0": ("refused", "gives the actions of a robot, no text"),
    "diffusion_gemma": ("refused", "writes blocks of text by diffusion, and layeralign token by token"),
    "shieldgemma2": (
        "refused",
        "its processor writes a prompt per policy and takes none, and it answers yes or no",
    ),
    "t5gemma2": ("refused", "an encoder-decoder, whose encoder reads the prompt and the picture"),
    "git": (
        "refused",
        "it takes no features, and puts those that it makes before the prompt, where no token stands for them",
    ),
    "pix2struct": ("refused", "an encoder-decoder, whose decoder reads the picture by cross-attention"),
    "pp_formulanet": ("refused", "an encoder-decoder, whose decoder reads the picture by cross-attention"),
}
"""model_type -> how it ends without a try, read from its code."""
MOST_MEMORY = 12 * 2**30
"""Bytes of address space; a "tiny" model that needs more is not tried."""
FOUND = ROOT / "benchmarks" / "results" / "coverage_models.tsv"


def lines(found: dict[str, list[str]]) -> list[str]:
    """The table, after the share that is covered."""
    towers = [status for status, _ in found.values() if status != "no tower"]
    covered = len([status for status in towers if status in ("own family", "proved")])
    table = [
        f"{covered} of {len(towers)} classes with a tower ({100 * covered / len(towers):.0f} %) are covered.", "",
        "| `model_type` | class | status | why |", "|---|---|---|---|",
    ]  # fmt: skip
    return table + [
        f"| `{kind}` | `{CLASSES[kind]}` | {status} | {why} |" for kind, (status, why) in found.items()
    ]


SIZES = {  # shown -> the published config that the tests keep, or the model_type whose defaults are the checkpoint's
    "Qwen3-VL-8B": "Qwen/Qwen3-VL-8B-Instruct", "Qwen3.5-27B": "qwen3_5", "Qwen3.5-35B-A3B": "qwen3_5_moe",
    "Gemma 4 E2B": "gemma4", "Gemma 3 4B": "google/gemma-3-4b-it", "InternVL3-1B": "OpenGVLab/InternVL3-1B-hf",
    "Qwen2.5-VL-7B": "Qwen/Qwen2.5-VL-7B-Instruct", "Mistral 3": "mistral3", "GLM-4.1V-9B": "glm4v", "Llama 4 Scout": "llama4",
}  # fmt: skip


def sizes() -> list[str]:
    """What an exit at a third of the depth saves of the encoder, from shapes on the meta device."""
    published = json.loads((ROOT / "tests" / "configs" / "published.json").read_text())
    table = ["| model | blocks | default exit | exit | FLOPs of the encoder saved |", "|---|---|---|---|---|"]
    for name, source in SIZES.items():
        config = published.get(source) or AutoConfig.for_model(source).to_dict()
        config["vision_config"] = config["vision_config"] or {"model_type": f"{source}_vision"}
        vlm = shape(config, name)
        exits = vlm.exits
        third = round(exits.layers / 3)
        share = flops(vlm, third) / flops(vlm, exits.default)
        table.append(f"| {name} | {exits.layers} | {exits.default} | {third} | {100 * (1 - share):.0f} % |")
    return table


def told(status: str, why: str) -> str:
    """A line of the record."""
    return f"{status}\t{' '.join(why.split())[:300]}"


def main() -> int:
    """Try the classes, or those asked for, and write what is known of all."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))  # a config whose sizes stay large
    known = dict(line.split("\t", 1) for line in FOUND.read_text().splitlines()) if FOUND.exists() else {}
    with tempfile.TemporaryDirectory() as models:
        for kind in sys.argv[1:] or CLASSES:
            folder = Path(models) / kind
            folder.mkdir()
            known[kind] = told(*tried(kind, folder))
            if not known[kind].startswith("proved"):
                shutil.rmtree(folder)
        known |= {kind: told(*end) for kind, end in tested(Path(models)).items()}
    for kind in sys.argv[1:] or CLASSES:
        print(kind, known[kind], sep="\t", flush=True)
    FOUND.write_text("".join(f"{kind}\t{known[kind]}\n" for kind in CLASSES if kind in known))
    found = {kind: known.get(kind, "not tried\t").split("\t") for kind in CLASSES}
    about = f"transformers {version('transformers')}"
    write("coverage.md", "coverage_models.py", about, [*lines(found), "", "## Sizes", "", *sizes()])
    return 0


if __name__ == "__main__":
    sys.exit(main())
