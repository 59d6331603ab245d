"""From which exit does a real vLLM server answer, and does `check` name that exit from the command line?

    sh benchmarks/runtimes/vllm_setup.sh out/vllm    # once: vLLM for CPUs
    python benchmarks/runtimes/vllm_server.py --vllm out/vllm/bin > benchmarks/results/vllm.md

The models are the bundled one, a LLaVA-NeXT with its weights, and a tiny random InternVL. Each is scanned at every exit. vLLM
then serves it with other settings of `--hf-overrides`, in float32, and `check --endpoint` asks it. vLLM's chat completions add no
token at the beginning, which LLaVA's tokenizer does; so LLaVA's template begins with it, but for one server of each model.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from serving import HEADS, PORT, cells, head, line, served
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaNextProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

import layeralign
from layeralign.analysis.results import Results
from layeralign.gating import endpoint
from layeralign.judges.models.remote import Endpoint
from layeralign.testbed import architecture

sys.path.append(str(Path(__file__).parents[2] / "tests"))
import tiny

SIDE = architecture.SIZE
SETTINGS: dict[str, tuple[int | None, ...]] = {
    "llava": (None, 0, 3, 5, -3, -1),
    "llava_next": (None, 3, -1),
    "internvl": (None, 2),
}
"""Model -> values of `vision_feature_layer`; None is the config's own, -2 for LLaVA and the last of 4 for InternVL."""


def random_internvl(folder: Path) -> None:
    """A tiny InternVL; vLLM needs heads of 32, and a config for videos."""
    narrow = tiny.text_size
    tiny.text_size = lambda names: narrow(names, hidden_size=64, num_key_value_heads=2)
    tiny.save("internvl", folder)
    video = {"video_processor_type": "InternVLVideoProcessor", "size": {"height": SIDE, "width": SIDE}}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video))


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


def rows(name: str, folder: Path, binaries: Path, limit: int) -> Iterator[str]:
    """The table's rows of a model."""
    (random_internvl if name == "internvl" else partial(bundled, name))(folder / "model")
    cases = {"cases": "testbed:test", "limit": limit, "max_new_tokens": 24}
    run: Results = layeralign.scan(layeralign.load(folder / "model"), out=folder / "run", **cases).results
    if name != "internvl":
        named_as_on_the_hub(folder / "model")
    template = folder / "model" / "chat_template.jinja"
    published = template.read_text()
    begun = {True: "{{ bos_token }}" + published, False: published}
    settings = [(one, name != "internvl") for one in SETTINGS[name]]
    for setting, begins in dict.fromkeys([*settings, (None, False)]):
        template.write_text(begun[begins])
        told = [] if setting is None else ["--hf-overrides", json.dumps({"vision_feature_layer": setting})]
        command = [
            *(str(binaries / "vllm"), "serve", str(folder / "model"), "--served-model-name", "m"),
            *("--dtype", "float32", "--max-model-len", "256", "--port", str(PORT), "--enforce-eager", *told),
        ]
        file = folder / "serve.sh"
        file.write_text(shlex.join(["vllm", *command[1:]]))
        exit = layeralign.check(file, folder / "run", runtime="vllm@0.32.0").exit
        with served(command, folder / "server.log", VLLM_CPU_KVCACHE_SPACE="1") as url:
            found = endpoint.locate(Endpoint.of(url, "m"), run)
        words = "its own" if setting is None else str(setting)
        without = "" if begins or name == "internvl" else ", no first token"
        yield line((name, words + without, *cells(found, exit)))


def main() -> None:
    """Serve each model with each setting; print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vllm", type=Path, required=True, help="the folder with vLLM's programs")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("out/vllm_server"))
    given = parser.parse_args()
    heads = ("model", "`vision_feature_layer`", *HEADS)
    head(
        "vLLM, served and asked", "vllm-cpu 0.32.0", f"vllm_server.py --vllm DIR --cases {given.cases}", heads
    )
    for name in SETTINGS:
        for row in rows(name, given.out / name, given.vllm, given.cases):
            print(row, flush=True)


if __name__ == "__main__":
    main()
