"""From which exit does a real vLLM server answer, and does `check` name that exit from the command line?

    sh benchmarks/runtimes/vllm_setup.sh out/vllm    # once: vLLM for CPUs
    python benchmarks/runtimes/vllm_server.py --vllm out/vllm/bin > benchmarks/results/vllm.md

The models are the bundled one, a LLaVA-NeXT with its weights, and tiny random ones of the other classes. Each is scanned at every
exit. vLLM then serves it with other settings of `--hf-overrides`, in float32, and `check --endpoint` asks it. vLLM's chat completions
add no token at the beginning, which LLaVA's tokenizer does; so LLaVA's template begins with it, but for one server of each model. An
InternVLChat is an InternVL under other names; transformers reads the latter. Mistral 3 needs torchvision, too.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from serving import HEADS, PORT, cells, head, line, served
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaNextProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from vllm_models import cut, internvl_chat, mistral3, random_internvl

import layeralign
from layeralign.analysis.results import Results
from layeralign.gating import endpoint, questions
from layeralign.gating.endpoint import Located, Reply
from layeralign.gating.log_probs import Scanned
from layeralign.judges.models.remote import Endpoint
from layeralign.testbed import architecture

SIDE = architecture.SIZE
SETTINGS: dict[str, tuple[int | None, ...]] = {
    "llava": (None, 0, 3, 5, -3, -1),
    "llava, bfloat16": (None,),
    "llava_next": (None, 3, -1),
    "internvl": (None, 2),
    "internvl_chat": (None, 0, -2),
    "mistral3": (None, 0, 2),
}
"""Model -> values of `vision_feature_layer` (`select_layer` of InternVLChat); None is the config's own, -2 for LLaVA and the last of 4
blocks for the random models."""
RANDOM = {"internvl": random_internvl, "internvl_chat": internvl_chat, "mistral3": mistral3}


def bundled(name: str, folder: Path) -> None:
    """The bundled weights as `llava` or `llava_next`."""
    processor = architecture.processor()
    model = layeralign.load("testbed").model
    if name == "llava_next":
        pinpoints = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE], [2 * SIDE, 2 * SIDE]]
        processor = LlavaNextProcessor(
            image_processor=LlavaNextImageProcessorPil(
                size={"shortest_edge": SIDE},
                crop_size={"height": SIDE, "width": SIDE},
                image_grid_pinpoints=pinpoints,
            ),
            tokenizer=processor.tokenizer,
            patch_size=architecture.PATCH,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=architecture.CHAT_TEMPLATE,
        )
        known = model.config.to_dict()
        config = LlavaNextConfig(
            vision_config=model.config.vision_config,
            text_config=model.config.text_config,
            image_grid_pinpoints=pinpoints,
            **{
                key: known[key]
                for key in ("image_token_index", "vision_feature_layer", "tie_word_embeddings")
            },
        )
        torch.manual_seed(0)
        made = LlavaNextForConditionalGeneration(config)
        made.load_state_dict(model.state_dict(), strict=False)  # all but the token of a new line
        model = made
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def named_as_on_the_hub(folder: Path) -> None:
    """Rename the tower's weights: transformers 5 leaves a level out that vLLM expects."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    long = {
        name.replace("vision_tower.", "vision_tower.vision_model.", 1): one for name, one in weights.items()
    }
    save_file(long, file, metadata={"format": "pt"})


def both(
    run: Results, scanned: Scanned, exits: list[int], asked: int, replies: list[Reply]
) -> tuple[Located, Located]:
    """What the answers show, and what the log-probabilities show."""
    each = [(reply.text.split(), reply.told) for reply in replies]
    far = [scanned.distances(run, exits, one.case, one.text, one.log_probs) for one in replies]
    known = [one for one in far if one is not None]
    return (
        Located(endpoint.fits(run, exits, each), asked, len(each)),
        Located(endpoint.fits(run, exits, each, far), asked, len(each), len(known)),
    )


def by_log_probs(found: Located) -> str:
    """The exits that fit the log-probabilities, and how far they are from the best one."""
    best, names = found.fits[0], ", ".join(fit.name for fit in found.exits) or "none"
    if best.distance is None:
        return f"{found.compared} compared"
    return f"{names} ({best.distance:.4f} from exit {best.name}, limit {best.limit:.4f})"


def blocks(layer: int | None, all: int) -> int:
    """Blocks that vLLM builds for a `select_layer`."""
    return all if layer is None else all + layer + 1 if layer < 0 else layer + 1


def made(name: str, folder: Path) -> Path:
    """A model in `folder`, which transformers reads; returns the folder that vLLM reads."""
    if name in RANDOM:
        return RANDOM[name](folder)
    bundled(name.partition(",")[0], folder)
    named_as_on_the_hub(folder)
    return folder


def rows(name: str, folder: Path, binaries: Path, limit: int) -> Iterator[str]:
    """The table's rows of a model."""
    model = made(name, folder / "model")
    cases = {"cases": "testbed:test", "limit": limit, "max_new_tokens": 24}
    run: Results = layeralign.scan(layeralign.load(folder / "model"), out=folder / "run", **cases).results
    scanned = Scanned.load(folder / "model", run)
    template = model / "chat_template.jinja"
    published = template.read_text()
    begun = {True: "{{ bos_token }}" + published, False: published}
    begins = not name.startswith("internvl")
    dtype = name.partition(", ")[2] or "float32"
    key = "select_layer" if name == "internvl_chat" else "vision_feature_layer"
    settings = [(one, begins) for one in SETTINGS[name]]
    settings += [(None, False)] if name in ("llava", "llava_next") else []
    for setting, begins in settings:
        template.write_text(begun[begins])
        told = [] if setting is None else ["--hf-overrides", json.dumps({key: setting})]
        code = ["--trust-remote-code"] if name == "internvl_chat" else []
        command = [
            *(str(binaries / "vllm"), "serve", str(model), "--served-model-name", "m", *code),
            *("--dtype", dtype, "--max-model-len", "256", "--port", str(PORT), "--enforce-eager", *told),
        ]
        file = folder / "serve.sh"
        file.write_text(shlex.join(["vllm", *command[1:]]))
        exit = layeralign.check(file, folder / "run", runtime="vllm@0.32.0").exit
        words = "its own" if setting is None else str(setting)
        without = ", no first token" if settings[0][1] and not begins else ""
        built = blocks(setting, run.exits.layers) if name == "internvl_chat" else None
        for kept in (None,) if built in (None, run.exits.layers) else (None, built):
            if kept is not None:
                cut(model, kept)
            after = "" if kept is None else f", {kept} blocks in the file"
            try:
                with served(command, folder / "server.log", VLLM_CPU_KVCACHE_SPACE="1") as url:
                    asked = endpoint.ask(Endpoint.of(url, "m"), run, questions.FIELDS)
            except SystemExit:
                last = "vLLM does not start"
                yield line((name, words + without + after, str(exit), last, "", "", "", ""))
                continue
            found, more = both(run, scanned, *asked)
            yield line((name, words + without + after, *cells(found, exit), by_log_probs(more)))
        if built is not None:
            made(name, folder / "model")


def main() -> None:
    """Serve each model with each setting; print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vllm", type=Path, required=True, help="the folder with vLLM's programs")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--models", nargs="+", default=list(SETTINGS))
    parser.add_argument("--out", type=Path, default=Path("out/vllm_server"))
    given = parser.parse_args()
    heads = ("model", "layer", *HEADS, "exits that fit the log-probabilities")
    head(
        "vLLM, served and asked", "vllm-cpu 0.32.0", f"vllm_server.py --vllm DIR --cases {given.cases}", heads
    )
    for name in given.models:
        for row in rows(name, given.out / name.replace(", ", "-"), given.vllm, given.cases):
            print(row, flush=True)


if __name__ == "__main__":
    main()
