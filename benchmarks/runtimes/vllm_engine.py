"""Does `scan --engine vllm` give the rows of our own engine, for every family, with a real vLLM server?

    sh benchmarks/runtimes/vllm_setup.sh out/vllm    # once: vLLM for CPUs
    python benchmarks/runtimes/vllm_engine.py --vllm out/vllm/bin > benchmarks/results/vllm_engine.md

The models are the bundled one as LLaVA and as LLaVA-NeXT, and tiny random ones of the other families, in float32. Each is
scanned twice at every exit: by our engine, and by a vLLM server that gets our features.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from serving import PORT, head, line, served
from transformers import AutoModelForImageTextToText
from vllm_server import bundled

import layeralign
from layeralign.errors import LayeralignError
from layeralign.runs.opening import open_run

sys.path.append(str(Path(__file__).parents[2] / "tests"))
import recent
import tiny

MODELS = (
    "llava",
    "llava with an adapter",
    "llava, merged",
    "llava_next",
    "llava_onevision",
    "qwen2_5_vl",
    "qwen3_vl",
    "internvl",
)
WIDTH, HEADS = 64, 2
"""vLLM's attention on a CPU needs heads of 32."""


def wider(name: str) -> tuple[object, type, object]:
    """A tiny model's parts, with a language model that vLLM can compute."""
    processor, kind, config = (tiny.FAMILIES | recent.FAMILIES)[name]()
    text = config.text_config
    text.hidden_size, text.num_attention_heads, text.num_key_value_heads, text.head_dim = (
        WIDTH,
        HEADS,
        HEADS,
        WIDTH // HEADS,
    )
    turned = {"qwen": [4, 6, 6], "glm4": [2, 3, 3]}.get(name[:4])  # GLM turns half of each head
    interleaved = {"mrope_interleaved": name.startswith("qwen3")} if name.startswith("qwen") else {}
    if turned:
        text.rope_parameters = text.rope_parameters | {"mrope_section": turned} | interleaved
    if name == "qwen3_vl_moe":
        text.norm_topk_prob = True  # in the checkpoints of the hub
    if name == "llava_onevision":  # the only value that vLLM knows
        processor.vision_aspect_ratio = config.vision_aspect_ratio = "anyres_max_9"
    if name.startswith(("qwen", "glm")):
        config.vision_config.out_hidden_size = WIDTH
    return processor, kind, config


def made(name: str, folder: Path) -> None:
    """The model of a family, as both programs read it."""
    if name in ("llava", "llava_next"):
        bundled(name, folder)
    else:
        tiny.save(name, folder, partial(wider, name))
        kind = {"internvl": "InternVLVideoProcessor", "qwen3_vl": "Qwen3VLVideoProcessor",
                "qwen3_vl_moe": "Qwen3VLVideoProcessor", "glm4v": "Glm4vVideoProcessor",
                "glm46v": "Glm46VVideoProcessor"}.get(name, "Qwen2VLVideoProcessor")  # fmt: skip
        (folder / "video_preprocessor_config.json").write_text(json.dumps({"video_processor_type": kind}))


def on_the_hub(folder: Path) -> None:
    """Rename a tower's weights as in checkpoints of the hub, which vLLM expects.

    Transformers keeps the names of the checkpoint that it loaded; a model that was made from a config has others.
    """
    file = folder / "model.safetensors"
    long = {
        n.replace("vision_tower.", "vision_tower.vision_model.", 1): one for n, one in load_file(file).items()
    }
    save_file(long, file, metadata={"format": "pt"})


def questions(folder: Path) -> str:
    """Pictures of noise with harmless requests, as a case file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, lines = np.random.default_rng(0), []
    for number in range(8):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / f"{number}.png")
        lines += [
            {"id": f"{number}-{at}", "prompt": text, "image": f"{number}.png", "kind": "benign"}
            for at, text in enumerate(("What is this?", "Count the colours, please."))
        ]
    file = folder / "cases.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return str(file)


def rows(folder: Path) -> set[tuple[object, ...]]:
    """A run's answers."""
    with open_run(folder) as run:
        return {(r["case"], r["exit"], r["answer"], r["tokens"], r["finish_reason"]) for r in run.rows()}


def trained(model: Path, folder: Path) -> Path:
    """A LoRA adapter with random weights for the language model of a checkpoint."""
    torch.manual_seed(0)
    base = layeralign.load(model).model
    names = [
        name
        for name, _ in base.named_modules()
        if "language_model" in name and name.endswith(("q_proj", "up_proj"))
    ]
    config = LoraConfig(
        r=8, target_modules=names, init_lora_weights=False, base_model_name_or_path=str(model)
    )
    get_peft_model(base, config).save_pretrained(folder)
    return folder


def merged(model: Path, adapter: Path) -> None:
    """Merge the adapter as docs/guide/models.md does, in place."""
    loaded = AutoModelForImageTextToText.from_pretrained(model)
    PeftModel.from_pretrained(loaded, adapter).merge_and_unload().save_pretrained(model)


def compared(name: str, folder: Path, binaries: Path, limit: int) -> Iterator[str]:
    """The table's row of a model."""
    model, family = folder / "model", name.partition(" ")[0].strip(",")
    made(family, model)
    given: dict[str, Any] = {"cases": "testbed:test", "limit": limit}
    if family not in ("llava", "llava_next"):
        given = {"cases": questions(folder / "cases")}
    if family in ("llava", "llava_next", "llava_onevision"):
        on_the_hub(model)
    adapter = trained(model, folder / "adapter") if name != family else None
    if name.endswith("merged"):
        merged(model, adapter)
        adapter = None
    given |= {"max_new_tokens": 16, "adapter": adapter}
    layeralign.scan(str(model), out=folder / "ours", **given)
    command = [
        *(str(binaries / "vllm"), "serve", str(model), "--served-model-name", "m", "--dtype", "float32"),
        *("--max-model-len", "256", "--port", str(PORT), "--enforce-eager", "--enable-mm-embeds"),
        *(("--enable-lora", "--lora-modules", f"tuned={adapter}") if adapter else ()),
    ]
    try:
        with served(command, folder / "server.log", VLLM_CPU_KVCACHE_SPACE="1") as url:
            start, at = time.monotonic(), f"tuned@{url}" if adapter else url
            layeralign.scan(str(model), out=folder / "theirs", engine="vllm", endpoint=at, **given)
            seconds = time.monotonic() - start
    except (SystemExit, LayeralignError) as error:
        yield line((name, "", "", f"refused: {error}", ""))
        return
    ours, theirs = rows(folder / "ours"), rows(folder / "theirs")
    exits, texts = len({one[1] for one in ours}), len({one[2] for one in ours})
    yield line(
        (name, str(exits), f"{len(ours)}, {texts} different", f"{len(ours & theirs)}", f"{seconds:.0f}")
    )


def main() -> None:
    """Serve and scan each model; print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vllm", type=Path, required=True, help="the folder with vLLM's programs")
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--out", type=Path, default=Path("out/vllm_engine"))
    given = parser.parse_args()
    heads = ("family", "exits", "answers", "equal with vLLM, token for token", "seconds")
    head("Our features, answered by vLLM", "vllm-cpu 0.32.0", "vllm_engine.py --vllm DIR", heads)
    for name in given.models:
        for row in compared(name, given.out / name.replace(" ", "_"), given.vllm, given.cases):
            print(row, flush=True)


if __name__ == "__main__":
    main()
