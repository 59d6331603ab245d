"""What an exit costs: blocks run, time, and whether its features are the full tower's.

    python benchmarks/encoder_cut.py

CLIP ViT-L/14 at 336 pixels, LLaVA-1.5's encoder, with random weights, one picture, float32.
"""

import os
import platform
import time
from datetime import UTC, datetime
from statistics import median

import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from layeralign.vlm import tower

REPEATS = 3


def main() -> None:
    """Print one row per exit, as Markdown."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
        patch_size=14,
    )  # fmt: skip
    model = CLIPVisionModel(config).eval()
    blocks, pixels = model.encoder.layers, torch.randn(1, 3, 336, 336)
    ran: list[int] = []
    for number, block in enumerate(blocks, 1):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    with torch.no_grad():
        full = model(pixel_values=pixels, output_hidden_states=True).hidden_states
        seconds: dict[int, list[float]] = {}
        differs = {}
        counted = {}
        for _ in range(REPEATS):
            for exit in (0, 1, 6, 12, 18, 23, 24):
                ran.clear()
                start = time.perf_counter()
                state = tower.states(lambda: model(pixel_values=pixels), blocks, [exit])[exit]
                seconds.setdefault(exit, []).append(time.perf_counter() - start)
                counted[exit] = len(ran)
                differs[exit] = (state - full[exit]).abs().max().item()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, "
          f"median of {REPEATS}\n")  # fmt: skip
    print("| exit | blocks run | seconds | of the default (23) | largest difference from the full tower |")
    print("|---|---|---|---|---|")
    for exit, times in seconds.items():
        share = median(times) / median(seconds[23])
        print(
            f"| {exit} | {counted[exit]} | {median(times):.3f} | {100 * share:.0f} % | {differs[exit]:.1e} |"
        )


if __name__ == "__main__":
    main()
