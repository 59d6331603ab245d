"""What an early exit saves: of the encoder, and of a whole request.

    python benchmarks/exit_cost.py > benchmarks/results/exit_cost.md

The encoder is CLIP-L/336 as in LLaVA-1.5 and the language model Vicuna-7B's shape, both with random weights, which
take as long as any. The encoder is timed whole, at every exit in turn. Of the language model one block and the
head are timed, and the block is counted 32 times, as its 32 blocks are equal: the whole of it does not fit beside
the rest into a small machine's memory. The request: one picture (576 tokens), a prompt of 64 tokens, an answer of
128. With a GPU, everything is timed on it in bfloat16; else on the CPU in float32.
"""

import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.cache_utils import DynamicCache
from transformers.models.llama.modeling_llama import LlamaModel

from layeralign.vlm import tower
from layeralign.vlm.checkpoint import Checkpoint
from layeralign.vlm.cost import flops
from layeralign.vlm.families.llava import Llava

EXITS = (0, 1, 6, 12, 18, 20, 23, 24)
PICTURE, PROMPT, ANSWER = 576, 64, 128
REPEATS = 5

CUDA = torch.cuda.is_available()
PLACE, DTYPE = ("cuda", torch.bfloat16) if CUDA else ("cpu", torch.float32)


def took(run: Callable[[], object]) -> float:
    """Seconds that it takes."""
    if CUDA:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def shape() -> LlavaForConditionalGeneration:
    """LLaVA-1.5-7B without weights."""
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336,
        patch_size=14, projection_dim=768,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=LlamaConfig(vocab_size=32064), vision_feature_layer=-2
    )
    with torch.device("meta"):
        return LlavaForConditionalGeneration(config).eval()


def encoder(vlm: Llava) -> dict[int, float]:
    """Exit -> seconds of encode(l): the tower up to l, and the projector."""
    place = torch.device(PLACE)
    with place:
        vlm.model.set_encoder(type(vlm.tower)(vlm.tower.config).eval(), modality="image")
        inner = vlm.model.model
        inner.multi_modal_projector = type(inner.multi_modal_projector)(vlm.model.config)
    vlm.tower.to(DTYPE)
    inner.multi_modal_projector.to(DTYPE)
    pixels = vlm.sample()["pixel_values"].to(place, DTYPE)

    def encode(exit: int) -> None:
        state = tower.states(lambda: vlm.tower(pixel_values=pixels), vlm.blocks, [exit])[exit]
        inner.multi_modal_projector(state[:, 1:])

    taken = {exit: [] for exit in EXITS}
    for turn in range(REPEATS + 1):
        for exit in EXITS:
            seconds = took(lambda exit=exit: encode(exit))
            if turn:
                taken[exit].append(seconds)
    return {exit: median(times) for exit, times in taken.items()}


def language(config: LlamaConfig) -> tuple[float, float]:
    """Seconds of the prefill, and of the whole answer, from one block and the head."""
    one = LlamaConfig(**config.to_dict() | {"num_hidden_layers": 1, "vocab_size": 8})
    with torch.device(PLACE):
        model = LlamaModel(one).eval().to(DTYPE)
        head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False).to(DTYPE)
    prefix = torch.randn(1, PICTURE + PROMPT, config.hidden_size, device=PLACE, dtype=DTYPE)
    token = prefix[:, :1]

    def prefill() -> DynamicCache:
        cache = DynamicCache(config=one)
        model(inputs_embeds=prefix, past_key_values=cache, use_cache=True)
        return cache

    block = median([took(prefill) for _ in range(REPEATS + 1)][1:])
    cache = prefill()
    steps = [
        took(lambda: model(inputs_embeds=token, past_key_values=cache, use_cache=True)) for _ in range(ANSWER)
    ]
    say = median([took(lambda: head(token)) for _ in range(4 * REPEATS)])
    layers = config.num_hidden_layers
    return layers * block + say, layers * sum(steps) + ANSWER * say


@torch.no_grad()
def main() -> None:
    """Measure, and print Markdown."""
    model = shape()
    vlm = Llava(model, None, Checkpoint("LLaVA-1.5-7B's shape", None))
    text = model.config.text_config
    weights = sum(p.numel() for n, p in model.named_parameters() if "language_model.layers" in n)
    seconds = encoder(vlm)
    prefill, decode = language(text)
    default = vlm.exits.default
    gflop = {exit: flops(vlm, exit) / 1e9 for exit in EXITS}
    place = torch.cuda.get_device_name() if CUDA else f"{platform.machine()}, {os.cpu_count()} cores"
    print("# What an exit saves\n")
    print(f"{datetime.now(UTC):%Y-%m-%d}, {place}, torch {torch.__version__}, {str(DTYPE)[6:]}, random weights; "
          f"median of {REPEATS}, exits in turn. `python benchmarks/exit_cost.py`\n")  # fmt: skip
    print("## encode(l) / encode(default): CLIP-L/336 and LLaVA-1.5's projector, one picture\n")
    print("| exit | GFLOP | of default | seconds | of default |")
    print("|---|---|---|---|---|")
    for exit in EXITS:
        mark = " (default)" if exit == default else ""
        print(
            f"| {exit}{mark} | {gflop[exit]:.0f} | {100 * gflop[exit] / gflop[default]:.0f} % "
            f"| {seconds[exit]:.4f} | {100 * seconds[exit] / seconds[default]:.0f} % |"
        )
    whole = seconds[default] + prefill + decode
    tokens = PICTURE + PROMPT
    work = {
        "encoder": gflop[default],
        "prefill": 2 * weights * tokens / 1e9
        + 4 * tokens * tokens * text.hidden_size * text.num_hidden_layers / 1e9,
        "decode": 2 * (weights + text.hidden_size * text.vocab_size) * ANSWER / 1e9,
    }
    print(
        f"\n## Of a whole request: {PICTURE} picture tokens, {PROMPT} of prompt, {ANSWER} of answer, batch of one\n"
    )
    print("| part | GFLOP | share | seconds | share |")
    print("|---|---|---|---|---|")
    for name, spent in (("encoder", seconds[default]), ("prefill", prefill), ("decode", decode)):
        share = 100 * work[name] / sum(work.values())
        print(f"| {name} | {work[name]:.0f} | {share:.1f} % | {spent:.3f} | {100 * spent / whole:.1f} % |")
    print("\n| exit | request, seconds | saved of the whole request |")
    print("|---|---|---|")
    for exit in EXITS:
        saved = seconds[default] - seconds[exit]
        print(f"| {exit} | {whole - saved:.3f} | {100 * saved / whole:.1f} % |")


if __name__ == "__main__":
    main()
