"""Exits of one model: our engine, one vLLM server with our features, and one vLLM server per exit.

    sh benchmarks/runtimes/vllm_setup.sh out/vllm    # once: vLLM for CPUs
    python benchmarks/runtimes/vllm_speed.py --vllm out/vllm/bin
    python benchmarks/runtimes/vllm_speed.py --vllm out/vllm/bin --every 1 --pictures 4 --rounds 1

A random LLaVA: 24 CLIP blocks of width 256, and a Llama with the shape of SmolLM2-135M. 16 pictures with 2 prompts each, up to 16 tokens,
float32, two threads, every sixth exit. The third way is what a user of vLLM does alone: `--hf-overrides '{"vision_feature_layer": N}'`, one
server after the other, asked with the pictures. A server is warm when it is timed: one request has been answered. Rounds take
turns.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers as t
from PIL import Image
from serving import PORT, head, line, served
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from vllm_server import named_as_on_the_hub

import layeralign
from layeralign import benchmarks
from layeralign.decode.decoding import Decoding
from layeralign.sweep.vllm.server import Server, picture_part
from layeralign.vlm.load import load
from layeralign.vlm.vlm import Vlm

sys.path.append(str(Path(__file__).parents[2] / "tests"))
import tiny

BLOCKS = 24
SIDE, PATCH, TOKENS = 224, 16, 16
DECODING = Decoding(max_new_tokens=TOKENS)


def model(folder: Path) -> Path:
    """The random LLaVA, with the names of weights that checkpoints of the hub have."""
    names = tiny.tokenizer(bos="<s>", adds_bos=True, image_token="<image>")
    square = {"height": SIDE, "width": SIDE}
    processor = t.LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=square), tokenizer=names,
        patch_size=PATCH, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template="{{ bos_token }}" + tiny.template("llava"),
    )  # fmt: skip
    vision = t.CLIPVisionConfig(
        hidden_size=256, intermediate_size=1024, num_hidden_layers=BLOCKS, num_attention_heads=4, image_size=SIDE,
        patch_size=PATCH,
    )  # fmt: skip
    text = t.LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=2048,
    )  # fmt: skip
    config = t.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=names.image_token_id, vision_feature_layer=-2,
        image_seq_length=(SIDE // PATCH) ** 2, vision_feature_select_strategy="default", tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    t.LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    named_as_on_the_hub(folder)
    return folder


def questions(folder: Path, pictures: int) -> str:
    """Pictures of noise, with two harmless requests each, as a case file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, lines = np.random.default_rng(0), []
    for number in range(pictures):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(folder / f"{number}.png")
        for at, text in enumerate(("What is shown in this picture?", "Describe the colours, one by one.")):
            one = {"id": f"{number}-{at}", "prompt": text, "image": f"{number}.png", "kind": "benign"}
            lines.append(json.dumps(one))
    file = folder / "cases.jsonl"
    file.write_text("\n".join(lines))
    return str(file)


def command(binaries: Path, folder: Path, *more: str) -> list[str]:
    """A vLLM server's command line."""
    flags = ("--served-model-name", "m", "--dtype", "float32", "--max-model-len", "1024", "--port", str(PORT))
    return [str(binaries / "vllm"), "serve", str(folder), *flags, "--enforce-eager", *more]


def warm(url: str, vlm: Vlm, cases: Sequence[object]) -> Server:
    """A server that has answered."""
    server = Server(url)
    server.ask([server.body(vlm, cases[0], picture_part(cases[0]), DECODING)])
    return server


def one_per_exit(
    vlm: Vlm, file: str, exits: Sequence[int], binaries: Path, folder: Path
) -> tuple[float, float]:
    """Seconds of answering, and with the servers' starts."""
    cases, answering, start = benchmarks.cases(file), 0.0, time.monotonic()
    for exit in exits:
        over = ("--hf-overrides", json.dumps({"vision_feature_layer": exit}))
        with served(command(binaries, folder, *over), folder.parent / "exit.log", **THREADS) as url:
            server = warm(url, vlm, cases)
            bodies = [server.body(vlm, case, picture_part(case), DECODING) for case in cases]
            began = time.monotonic()
            server.ask(bodies)
            answering += time.monotonic() - began
    return answering, time.monotonic() - start


THREADS = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "2"}


def timed(work: object) -> float:
    """Seconds that a call takes."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


def main() -> None:
    """Measure; print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vllm", type=Path, required=True, help="the folder with vLLM's programs")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--every", type=int, default=6, help="1 for each of the 25 exits, 6 for 5 of them")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("out/vllm_speed"))
    given = parser.parse_args()
    exits = range(0, BLOCKS + 1, given.every)
    folder, file = model(given.out / "model"), questions(given.out / "cases", given.pictures)
    vlm, scan = load(folder), {"cases": file, "exits": list(exits), "max_new_tokens": TOKENS}
    heads = (
        "round",
        "our engine, s",
        "vLLM with our features, s",
        "with its start, s",
        "one vLLM per exit, s",
        "with their starts, s",
    )
    head(
        f"{len(exits)} exits, {len(exits) * given.pictures * 2} answers: whose engine",
        "vllm-cpu 0.32.0, two threads",
        f"vllm_speed.py --vllm DIR --every {given.every} --pictures {given.pictures}",
        heads,
    )
    torch.set_num_threads(2)
    for number in range(1, given.rounds + 1):
        out = given.out / f"round{number}"
        ours = timed(lambda out=out: layeralign.scan(vlm, out=out / "ours", **scan))
        start = time.monotonic()
        features = (*command(given.vllm, folder), "--enable-mm-embeds")
        with served(list(features), given.out / "features.log", **THREADS) as url:
            warm(url, vlm, benchmarks.cases(file))
            theirs = timed(
                lambda out=out, url=url: layeralign.scan(
                    str(folder), out=out / "theirs", engine="vllm", endpoint=url, **scan
                )
            )
            with_start = time.monotonic() - start
        each, all_of_it = one_per_exit(vlm, file, exits, given.vllm, folder)
        seconds = (ours, theirs, with_start, each, all_of_it)
        print(line((str(number), *(f"{one:.1f}" for one in seconds))), flush=True)
    print(
        f"\nLoad while measuring: {os.getloadavg()[2]:.1f} in the last 15 minutes, on {os.cpu_count()} cores."
    )


if __name__ == "__main__":
    main()
