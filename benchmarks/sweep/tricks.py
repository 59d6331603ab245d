"""What single decisions of the engine bring, on the 24-block + 135M shape.

    python benchmarks/sweep/tricks.py > benchmarks/results/sweep_tricks.md

But for the first table and the profile one thread, and processor time instead of the clock's, so that neighbours on the machine matter
little; the least of some tries. On another machine and at another width the best sizes differ.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import models
import torch
from rates import linear_layers
from torch.profiler import ProfilerActivity, profile
from transformers import DynamicCache

import layeralign
from layeralign.decode.cache import KVCache
from layeralign.testbed import cases as testbed
from layeralign.vlm.vlm import Vlm

PROMPT, ANSWER = 177, 32
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm")


def spent(run: Callable[[], object], tries: int = 3) -> float:
    """Seconds of processor time, after one try that does not count."""
    run()
    taken = []
    for _ in range(tries):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return min(taken)


def prompts(rows: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor, list[None]]:
    """What `Vlm.hidden` takes, all rows beginning alike."""
    ids = torch.randint(100, 2000, (1, tokens), generator=torch.Generator().manual_seed(0)).expand(rows, -1)
    return ids, torch.ones_like(ids, dtype=torch.bool), [None] * rows


def prefill(vlm: Vlm) -> None:
    """Tokens that are read at once."""
    print(
        "## Prompts of 177 tokens read at once\n\n| prompts | tokens | ms a token | its linear layers alone |\n|---|---|---|---|"
    )
    for rows in (1, 2, 4, 8, 16, 24):
        took = spent(lambda rows=rows: vlm.hidden(*prompts(rows, PROMPT), DynamicCache()))
        least = spent(linear_layers(vlm, rows * PROMPT))
        print(
            f"| {rows} | {rows * PROMPT} | {1000 * took / rows / PROMPT:.2f} | {1000 * least / rows / PROMPT:.2f} |"
        )


def decode(vlm: Vlm) -> None:
    """Rows beside each other."""
    print(
        "\n## Rows beside each other, a step of decoding\n\n| rows | ms a row | rows that begin at other columns |\n|---|---|---|"
    )
    one = DynamicCache()
    vlm.hidden(*prompts(1, PROMPT), one)
    for rows in (1, 8, 32, 64, 128, 256):
        told = []
        for ragged in (0, 5):
            cache = KVCache()
            cache.add(one, [(0, PROMPT - ragged * (row % 2)) for row in range(rows)], PROMPT + ANSWER, rows)
            empty = torch.tensor([[ragged * (row % 2)] for row in range(rows)])

            def step(cache: KVCache = cache, empty: torch.Tensor = empty, ragged: int = ragged) -> None:
                inside = torch.arange(cache.get_seq_length() + 1) >= empty if ragged else None
                hidden = vlm.decode_step(empty + 5, empty + PROMPT, cache, inside, {})
                vlm.logits(hidden[:, -1]).argmax(-1)
                cache.grew()

            told.append(1000 * spent(step, 5) / rows)
        print(f"| {rows} | {told[0]:.2f} | {told[1]:.2f} |")


def lead(vlm: Vlm) -> None:
    """Text before the picture, kept or read again."""
    print("\n## Text before the picture, kept instead of read again, four prompts\n")
    print(
        "| text | prompt | read whole, s | behind the text, s | saved | of the tokens |\n|---|---|---|---|---|---|"
    )
    for before, tokens in ((19, 177), (32, 190), (100, 258), (200, 358)):
        ids, inside, none = prompts(4, tokens)
        kept = DynamicCache()
        vlm.hidden(ids[:1, :before], inside[:1, :before], none[:1], kept)

        def behind(
            before: int = before,
            ids: torch.Tensor = ids,
            inside: torch.Tensor = inside,
            kept: DynamicCache = kept,
        ) -> None:
            cache = DynamicCache()
            for index, layer in enumerate(kept.layers):
                cache.update(layer.keys.expand(4, -1, -1, -1), layer.values.expand(4, -1, -1, -1), index)
            vlm.hidden(ids[:, before:], inside[:, before:], [None] * 4, cache)

        whole = spent(lambda tokens=tokens: vlm.hidden(*prompts(4, tokens), DynamicCache()))
        took = spent(behind)
        print(
            f"| {before} | {tokens} | {whole:.2f} | {took:.2f} | {100 - 100 * took / whole:.0f} % | {100 * before / tokens:.0f} % |"
        )


def projection(name: str, vlm: Vlm, pictures: list) -> None:
    """All exits through the projector at once, or one after the other."""
    kind, own = type(vlm), vlm.exits_together
    told = []
    for together in (True, False):
        kind.exits_together = together
        told.append(1000 * spent(lambda: vlm.encode(pictures, vlm.exits.all), 5))
    kind.exits_together = own
    print(f"| {name} | {len(pictures)} | {len(vlm.exits.all)} | {told[0]:.1f} | {told[1]:.1f} |")


def compiled(vlm: Vlm) -> None:
    """torch.compile around each block."""

    def run() -> None:
        vlm.hidden(*prompts(4, PROMPT), DynamicCache())

    before = spent(run)
    layers = list(vlm.model.get_decoder().layers)
    start = time.process_time()
    for layer in layers:
        layer.forward = torch.compile(layer.forward, dynamic=True)
    run()
    warm = time.process_time() - start
    after = spent(run)
    print(f"\n## torch.compile around each block, four prompts\n\nplain {before:.2f} s, compiled {after:.2f} s, after {warm:.0f} s "
          "of processor time to compile.")  # fmt: skip


def reads(folder: Path, threads: int, until: float) -> None:
    """The child: read prompts, four at a time, for the last 20 seconds before `until`; print tokens a second."""
    torch.set_num_threads(threads)
    vlm, asked = layeralign.load(folder), prompts(4, PROMPT)
    vlm.hidden(*asked, DynamicCache())
    time.sleep(max(0, until - 20 - time.time()))
    start, tokens = time.time(), 0
    while time.time() < until:
        vlm.hidden(*asked, DynamicCache())
        tokens += 4 * PROMPT
    print(tokens / (time.time() - start))


def beside(folder: Path) -> None:
    """One process with two threads, or two with one each, by the clock."""
    print("## Prompts read by the clock\n\n| processes | threads each | tokens/s together |\n|---|---|---|")
    for processes, threads in ((1, 1), (1, 2), (2, 1)):
        told = [sys.executable, __file__, "--reads", str(folder), str(threads), str(time.time() + 45)]
        running = [subprocess.Popen(told, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
        speeds = [float(one.communicate()[0].split()[-1]) for one in running]
        print(f"| {processes} | {threads} | {sum(speeds):.0f} |")
    print()


def shares(vlm: Vlm, rows: int = 128) -> None:
    """Where the time goes, by torch's profiler, with as many threads as torch takes by itself."""
    print(f"\n## Where the time goes, {torch.get_num_threads()} threads\n")
    print("| | matrix products | attention | all else |\n|---|---|---|---|")
    one = DynamicCache()
    vlm.hidden(*prompts(1, PROMPT), one)
    cache = KVCache()
    cache.add(one, [(0, PROMPT)] * rows, PROMPT + ANSWER, rows)
    last, at = torch.full((rows, 1), 5), torch.full((rows, 1), PROMPT)

    def step() -> None:
        vlm.logits(vlm.decode_step(last, at, cache, None, {})[:, -1]).argmax(-1)
        cache.grew()

    for name, run in (
        ("a prompt, four at a time", lambda: vlm.hidden(*prompts(4, PROMPT), DynamicCache())),
        (f"a step of {rows} rows", step),
    ):
        run()
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            for _ in range(3):
                run()
        spent: dict[str, float] = {"mm": 0, "attention": 0, "else": 0}
        for event in seen.key_averages():
            kind = (
                "attention"
                if "scaled_dot_product" in event.key
                else "mm"
                if event.key in PRODUCTS
                else "else"
            )
            spent[kind] += event.self_cpu_time_total
        told = " | ".join(f"{100 * part / sum(spent.values()):.0f} %" for part in spent.values())
        print(f"| {name} | {told} |")


@torch.inference_mode()
def main() -> None:
    """Measure, and print Markdown."""
    if sys.argv[1:2] == ["--reads"]:
        reads(Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
        return
    own = torch.get_num_threads()
    torch.set_num_threads(1)
    print("# What single decisions of the engine bring\n")
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, one thread, torch {torch.__version__}, load average "
          f"{os.getloadavg()[0]:.1f}: `python {' '.join(sys.argv)}`\n")  # fmt: skip
    with TemporaryDirectory() as folder:
        saved = models.save("135m", Path(folder) / "model")
        beside(saved)
        vlm = layeralign.load(saved)
        prefill(vlm)
        decode(vlm)
        lead(vlm)
        print(
            "\n## Projected at once\n\n| model | pictures | exits | at once, ms | exit by exit, ms |\n|---|---|---|---|---|"
        )
        projection("24 blocks + 135M", vlm, [case.picture.open() for case in models.cases(1, 1)])
        small = layeralign.load("testbed")
        projection("testbed", small, [case.picture.open() for case in testbed.cases("dev", 14, 0)])
        torch.set_num_threads(own)
        shares(vlm)
        torch.set_num_threads(1)
        compiled(vlm)


if __name__ == "__main__":
    main()
