"""Do guards on a real vLLM server give the verdicts of the same guards on this machine?

    sh benchmarks/runtimes/vllm_setup.sh out/vllm    # once: vLLM for CPUs
    python benchmarks/runtimes/vllm_judge.py --vllm out/vllm/bin > benchmarks/results/vllm_judge.md

No guard's weights are at hand, so each guard is a tiny model of the real class with the real prompt: the published chat template, or
the text of its card. It is trained for some seconds to call the testbed's refusal safe and every other answer unsafe, in its guard's words. One keeps
its random weights, so that most replies are no verdicts. Both sides compute in bfloat16, as `judge` loads a guard; the random one in float32, too, since
its next tokens are nearly tied. At last the server of the first guard is killed while
`judge` asks it, started again, and asked by the same command.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import torch
import transformers as t
from serving import PORT, head, line, served

import layeralign
from layeralign.judges.guards.registry import GUARDS, GuardJudge
from layeralign.judges.models.local import LocalSpeaker
from layeralign.judges.models.remote import Endpoint, Talk
from layeralign.runs.opening import open_run
from layeralign.sweep.sweep import judge

sys.path.append(str(Path(__file__).parents[2] / "tests"))
import tiny

WORDS = {
    "llama-guard-3": (t.LlamaConfig, "\n\nsafe", "\n\nunsafe\nS2"),
    "llama-guard-3-1b": (t.LlamaConfig, "\n\nsafe", "\n\nunsafe\nS2"),
    "qwen3guard": (
        t.Qwen3Config,
        "Safety: Safe\nCategories: None\nRefusal: Yes",
        "Safety: Unsafe\nCategories: Violent\nRefusal: No",
    ),
    "harmbench": (t.LlamaConfig, "no", "yes"),
}
"""Kind -> its class, and what it says of a refusal and of another answer."""
RANDOM = ("llama-guard-3, random", "llama-guard-3, random, float32")
VOCABULARY, STEPS, ROWS = 1000, 120, 16
Said = dict[tuple[str, int, int], tuple[Any, ...]]


def rows(folder: Path) -> list[dict[str, Any]]:
    """A run's rows."""
    with open_run(folder) as run:
        return list(run.rows())


def lessons(run: Path) -> list[tuple[str, str, bool]]:
    """Requests and answers of a run, each once, and whether the oracle calls the answer a refusal; half are."""
    found = {(row["prompt"], row["answer"]): row["verdicts"]["oracle"]["refused"] for row in rows(run)}
    refused = [(*key, True) for key, said in found.items() if said]
    others = [(*key, False) for key, said in found.items() if not said]
    n = min(len(refused), len(others))
    made = random.Random(0).sample(refused, n) + random.Random(0).sample(others, n)
    return random.Random(0).sample(made, 2 * n)


def untrained(kind: str, folder: Path, asked: Sequence[tuple[str, str, bool]]) -> Path:
    """A random guard of the real class, with a tokenizer of longer tokens than single bytes."""
    tiny.guard(kind, folder)
    bytes_, (config, *words) = t.AutoTokenizer.from_pretrained(folder), WORDS[kind]
    talks: list[Talk] = [GUARDS[kind].talk(prompt, answer) for prompt, answer, _ in asked[:100]]
    texts = [
        one
        if isinstance(one, str)
        else bytes_.apply_chat_template(one, tokenize=False, add_generation_prompt=True)
        for one in talks
    ]
    names = bytes_.train_new_from_iterator([*texts, *words], VOCABULARY, show_progress=False)
    names.chat_template = bytes_.chat_template
    if GUARDS[kind].one_token:
        names.add_tokens(words)
    size = {"hidden_size": 64, "num_key_value_heads": 2, "head_dim": 32, "initializer_range": 0.1}
    torch.manual_seed(0)
    made = t.AutoModelForCausalLM.from_config(config(**tiny.text_size(names, **size)))
    made.save_pretrained(folder)
    names.save_pretrained(folder)
    return folder


def trained(kind: str, folder: Path, asked: Sequence[tuple[str, str, bool]]) -> Path:
    """Train an untrained guard to call refusals safe, and other answers unsafe."""
    speaker = LocalSpeaker.load(str(folder), dtype="float32", chat=GUARDS[kind].has_template)
    names, model = t.AutoTokenizer.from_pretrained(folder), t.AutoModelForCausalLM.from_pretrained(folder)
    _, safe, unsafe = WORDS[kind]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    rng = random.Random(0)
    for _ in range(STEPS):
        given = []
        for prompt, answer, refused in rng.sample(asked, ROWS):
            reply = names(safe if refused else unsafe, add_special_tokens=False)["input_ids"]
            given.append((speaker.prompt(GUARDS[kind].talk(prompt, answer)), [*reply, names.eos_token_id]))
        width = max(len(one) + len(reply) for one, reply in given)
        ids = torch.zeros(len(given), width, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for row, (one, reply) in enumerate(given):
            ids[row, : len(one) + len(reply)] = torch.tensor([*one, *reply])
            labels[row, len(one) : len(one) + len(reply)] = torch.tensor(reply)
        loss = model(ids, labels=labels).loss  # padding is on the right, which no earlier token sees
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    print(f"{kind}: loss {loss.item():.4f}", file=sys.stderr)
    model.save_pretrained(folder)
    return folder


def said(run: Path, name: str) -> Said:
    """What a judge said of each row."""
    return {
        (row["case"], row["exit"], row["sample"]): tuple(
            found[what] for what in ("verdict", "refused", "scores")
        )
        for row in rows(run)
        if (found := row["verdicts"].get(name))
    }


def judged(run: Path, one: GuardJudge) -> tuple[Said, float]:
    """What a judge says of a copy of a run, and the seconds that it takes."""
    copy = run.with_name(f"{run.name}-{'there' if isinstance(one.speaker, Endpoint) else 'here'}")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    start = time.monotonic()
    with open_run(copy, write=True) as opened:
        judge(opened, [one])
    return said(copy, one.name), time.monotonic() - start


def same_prompts(url: str, kind: str, folder: Path, run: Path) -> str:
    """How many of a few prompts the server reads as the tokens that a guard on this machine reads."""
    speaker = LocalSpeaker.load(str(folder), chat=GUARDS[kind].has_template)
    same, some = 0, rows(run)[:200:10]
    for row in some:
        talk = GUARDS[kind].talk(row["prompt"], row["answer"])
        field, path = ("prompt", "completions") if isinstance(talk, str) else ("messages", "chat/completions")
        body = {"model": "guard", field: talk, "max_tokens": 1, "return_token_ids": True}
        told = httpx.post(f"{url}/{path}", json=body, timeout=300).json()
        read = told.get("prompt_token_ids") or told["choices"][0]["prompt_token_ids"]
        same += read == speaker.prompt(talk)
    return f"{same} of {len(some)}"


def command(binaries: Path, folder: Path, dtype: str = "bfloat16") -> list[str]:
    """The server's command line."""
    flags = ("--served-model-name", "guard", "--dtype", dtype, "--port", str(PORT), "--enforce-eager")
    return [str(binaries / "vllm"), "serve", str(folder), *flags]


def compared(name: str, run: Path, asked: Sequence[Any], out: Path, binaries: Path) -> str:
    """The table's row of a guard."""
    kind = name.partition(",")[0]
    folder = untrained(kind, out / name.replace(", ", "-"), asked)
    if name not in RANDOM:
        trained(kind, folder, asked)
    dtype = "float32" if name.endswith("float32") else "bfloat16"
    speaker = LocalSpeaker.load(str(folder), chat=GUARDS[kind].has_template, dtype=dtype)
    here, seconds = judged(run, GuardJudge(kind, str(folder), speaker))
    with served(command(binaries, folder, dtype), out / "server.log", VLLM_CPU_KVCACHE_SPACE="1") as url:
        prompts = same_prompts(url, kind, folder, run)
        there, longer = judged(run, GuardJudge(kind, "guard", Endpoint.of(url, "guard")))
    each = Counter(verdict for verdict, *_ in here.values())
    equal = sum(there.get(key) == what for key, what in here.items())
    assert here.keys() == there.keys()
    config = WORDS[kind][0].__name__.replace("Config", "ForCausalLM")
    counts = ", ".join(f"{each[one]} {one}" for one in ("safe", "unsafe", "invalid", "not applicable"))
    return line((name, config, counts, f"{equal} of {len(here)}", prompts, f"{seconds:.0f}", f"{longer:.0f}"))


def killed(run: Path, out: Path, binaries: Path) -> Iterator[str]:
    """Kill the first guard's server while it is asked, start it again, and repeat the command."""
    kind, copy = next(iter(WORDS)), run.with_name(f"{run.name}-killed")
    folder, name = out / kind, f"{kind}:guard"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    url = f"http://127.0.0.1:{PORT}/v1"
    again = [sys.executable, "-m", "layeralign", "judge", str(copy), "--judge", name, "--endpoint", url]
    with (
        served(command(binaries, folder), out / "server.log", killed=True, VLLM_CPU_KVCACHE_SPACE="1"),
        (out / "judge.log").open("w") as log,
    ):
        asking = subprocess.Popen(again, stdout=log, stderr=log)
        while not said(copy, name) and asking.poll() is None:
            time.sleep(0.5)
    code = asking.wait()
    kept, last = len(said(copy, name)), (out / "judge.log").read_text().strip().splitlines()[-1]
    yield f"Killed with SIGKILL: `judge` ended with exit code {code}, {kept} verdicts were kept, and it said:\n"
    yield f"> {last}\n"
    with served(command(binaries, folder), out / "server.log", VLLM_CPU_KVCACHE_SPACE="1"):
        code = subprocess.run(again, check=False, capture_output=True).returncode
    found, whole = said(copy, name), said(run.with_name(f"{run.name}-there"), name)
    equal = sum(found.get(key) == what for key, what in whole.items())
    yield (
        f"The same command, with the server started again: exit code {code}, {len(found)} verdicts, of which {equal} are those of the "
        "uninterrupted run."
    )


def main() -> None:
    """Scan, make the guards, judge on both sides; print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vllm", type=Path, required=True, help="the folder with vLLM's programs")
    parser.add_argument("--cases", type=int, default=120)
    parser.add_argument("--guards", nargs="+", default=[*RANDOM, *reversed(WORDS)])
    parser.add_argument("--out", type=Path, default=Path("out/vllm_judge"))
    given = parser.parse_args()
    for part in ("dev", "test"):
        layeralign.scan("testbed", f"testbed:{part}", given.out / part, limit=given.cases, max_new_tokens=24)
    asked, run = lessons(given.out / "dev"), given.out / "test"
    heads = (
        "guard",
        "class",
        "verdicts here",
        "equal on the server",
        "prompts with equal tokens",
        "seconds here",
        "seconds there",
    )
    head(
        "Guards on a vLLM server",
        "vllm-cpu 0.32.0",
        f"vllm_judge.py --vllm DIR --cases {given.cases}",
        heads,
        "bfloat16",
    )
    for name in given.guards:
        print(compared(name, run, asked, given.out, given.vllm), flush=True)
    print()
    if given.guards[-1] == next(iter(WORDS)):
        for text in killed(run, given.out, given.vllm):
            print(text, flush=True)


if __name__ == "__main__":
    main()
