"""What scanning and aligning the public checkpoints costs at least, computed from their shapes.

    python benchmarks/costs.py    # writes docs/guide/models.md's table

Nothing is measured and no weight is needed: shapes are those of tests/configs/published.json, counted on the meta device as
`layeralign inspect` does. Memory is what has to be there: weights, caches, the widest layer's states. Time is a floor: what
the GPU named below needs if it never waits for anything but its own arithmetic (prefill, training) or its own memory
(decoding). The encoder is left out: it is a few percent of a request.
"""

import json
import re
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from layeralign.training.settings import AlignSettings
from layeralign.vlm.load import empty
from layeralign.vlm.vlm import Vlm

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "guide" / "models.md"
BEGIN, END = "<!-- made by benchmarks/costs.py -->", "<!-- end -->"
GPU, FLOPS, BANDWIDTH = (
    "A100 80 GB (SXM)",
    312e12,
    2.039e12,
)  # NVIDIA's data sheet: dense bf16; bytes a second
PROMPT, ANSWER, ROWS = 64, 128, 32  # tokens; rows together in a scan with `--batch-size 32`
MICROBATCH = 8  # rows together in a training: --accumulate 12 of 96 rows
TOKENS = {  # of one picture of 640 × 480, as in MS-COCO, by each processor's published settings
    "llava-hf/llava-1.5-7b-hf": 576,  # 24²
    "llava-hf/llava-1.5-13b-hf": 576,
    "llava-hf/llava-v1.6-mistral-7b-hf": 576
    + 36 * 49,  # whole, and 2 × 2 tiles unpadded to 48 × 36, newlines
    "llava-hf/llava-v1.6-vicuna-7b-hf": 576 + 36 * 49,
    "meta-llama/Llama-3.2-11B-Vision-Instruct": 1,  # its states go to cross-attention: CROSS
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": 729 + 40 * 55,  # whole, and 2 × 2 tiles unpadded to 54 × 40
    "OpenGVLab/InternVL3-1B-hf": 13 * 256,  # 4 × 3 tiles and the whole
    "google/paligemma-3b-mix-224": 256,
    "google/paligemma2-3b-mix-224": 256,
    "google/gemma-3-4b-it": 256,
    "HuggingFaceM4/Idefics3-8B-Llama3": 13 * 169,  # 4 × 3 tiles and the whole
    "HuggingFaceTB/SmolVLM-Instruct": 13 * 81,
    "Qwen/Qwen2.5-VL-7B-Instruct": 23 * 17,  # 28 pixels a side
    "Qwen/Qwen3-VL-8B-Instruct": 20 * 15,  # 32 pixels a side
}
CROSS = {"meta-llama/Llama-3.2-11B-Vision-Instruct": 4 * 1601}  # four tiles, those that it has not padded


@dataclass(frozen=True)
class Language:
    """A language model's shape. Bytes are of 16-bit numbers.

    Attributes:
        weights: parameters that a token goes through, the head among them.
        blocks: that attend to the text.
        cross: that attend to the picture instead.
        heads, head: numbers of key-value heads, and their width.
        width, inner, words: of the states, of the MLP's, and the vocabulary.
        lora: parameters of an adapter of the default rank.
    """

    weights: int
    blocks: int
    cross: int
    heads: int
    head: int
    width: int
    inner: int
    words: int
    lora: int

    def cache(self, tokens: int, cross: int) -> int:
        """Bytes of keys and values of one row."""
        return 2 * 2 * self.heads * self.head * (self.blocks * tokens + self.cross * cross)

    def forward(self, tokens: int, cross: int) -> float:
        """Floating-point operations of one row's pass, the head left out."""
        linear = 2 * (self.weights - self.width * self.words) * tokens
        attention = 4 * self.width * (self.blocks * tokens**2 + self.cross * tokens * cross)
        return linear + attention + 4 * self.width * self.heads * self.head * self.cross * cross


def language(vlm: Vlm) -> Language:
    """Read off a model on the meta device."""
    text = vlm.model.config.get_text_config()
    cross = len(getattr(text, "cross_attention_layers", None) or ())
    heads = text.num_attention_heads
    decoder = vlm.model.get_decoder()
    linear = [m for m in decoder.modules() if isinstance(m, nn.Linear)]
    return Language(
        weights=sum(m.weight.numel() for m in linear) + text.hidden_size * text.vocab_size,
        blocks=text.num_hidden_layers - cross,
        cross=cross,
        heads=text.num_key_value_heads,
        head=getattr(text, "head_dim", None) or text.hidden_size // heads,
        width=text.hidden_size,
        inner=text.intermediate_size,
        words=text.vocab_size,
        lora=AlignSettings().rank * sum(m.in_features + m.out_features for m in linear),
    )


def scan(text: Language, weights: int, picture: int, cross: int) -> tuple[float, float]:
    """Bytes, and seconds an answer."""
    tokens = picture + PROMPT
    cache = ROWS * text.cache(tokens + ANSWER, cross)
    widest = ROWS * tokens * 2 * (3 * text.inner + 2 * text.width)
    steps = ANSWER * (2 * text.weights + ROWS * text.cache(tokens + ANSWER // 2, cross)) / BANDWIDTH
    return weights + cache + widest, text.forward(tokens, cross) / FLOPS + steps / ROWS


def align(text: Language, weights: int, picture: int, cross: int) -> tuple[float, float]:
    """Bytes, with --gradient-checkpointing and --accumulate 12, and seconds a step of L-PPO."""
    chosen = AlignSettings()
    trained = round(chosen.rows * (1 - chosen.retention_share))
    tokens = picture + PROMPT + ANSWER
    rollout = trained * text.cache(tokens, cross)
    retention_logits = 4 * (chosen.rows - trained) * ANSWER * text.words
    states = (
        2
        * MICROBATCH
        * tokens
        * ((text.blocks + text.cross) * text.width + 2 * (3 * text.inner + 2 * text.width))
    )
    logits = 3 * 4 * MICROBATCH * ANSWER * text.words  # they, their softmax, their gradient
    adapter = 16 * text.lora  # weight, gradient, AdamW's two moments, in float32
    decode = ANSWER * (2 * text.weights + trained * text.cache(tokens - ANSWER // 2, cross)) / BANDWIDTH
    prefill = trained * text.forward(picture + PROMPT, cross) / FLOPS
    passes = 2 + 3 * chosen.epochs  # the policy's and the start's; then forward, again, backward
    update = passes * chosen.rows * text.forward(tokens, cross) / FLOPS
    return weights + adapter + max(rollout, retention_logits + states + logits), decode + prefill + update


def row(name: str, config: dict) -> str:
    """A line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        vlm = empty(folder)
    parameters = sum(parameter.numel() for parameter in vlm.model.parameters())
    text, exits = language(vlm), len(vlm.exits.all)
    picture, cross = TOKENS[name], CROSS.get(name, 0)
    scan_bytes, answer = scan(text, 2 * parameters, picture, cross)
    align_bytes, step = align(text, 2 * parameters, picture, cross)
    hours = 1000 * exits * answer / 3600
    return (
        f"| `{name}` | {exits} | {cross or picture}{' (cross)' if cross else ''} | {2 * parameters / 1e9:.1f} "
        f"| {scan_bytes / 1e9:.0f} | {hours:.1f} | {align_bytes / 1e9:.0f} | {AlignSettings().steps * step / 3600:.1f} |"
    )


@torch.no_grad()
def main() -> None:
    """Write the table into the page."""
    known = json.loads((ROOT / "tests" / "configs" / "published.json").read_text())
    table = [
        BEGIN,
        f"{datetime.now(UTC):%Y-%m-%d}, transformers {version('transformers')}, computed for an {GPU}: "
        "`python benchmarks/costs.py`",
        "",
        "| checkpoint | exits | tokens of a picture | weights, GB | scan: memory, GB | scan: hours for 1,000 cases "
        "| align: memory, GB | align: hours for 200 steps |",
        "|---|---|---|---|---|---|---|---|",
        *(row(name, known[name]) for name in TOKENS),
        END,
    ]
    page = PAGE.read_text()
    made, found = re.subn(f"{BEGIN}.*{END}", lambda _: "\n".join(table), page, flags=re.DOTALL)
    if not found:
        sys.exit(f"{PAGE}: there is no {BEGIN} ... {END}")
    PAGE.write_text(made)


if __name__ == "__main__":
    main()
