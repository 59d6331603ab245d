"""The time of a watch's score, for features of the bundled model's size and of LLaVA-1.5-7B's.

OMP_NUM_THREADS=1 python benchmarks/watch.py
"""

from __future__ import annotations

import timeit

import torch

from layeralign.watching import fit

for name, tokens, width in (("bundled model", 16, 128), ("LLaVA-1.5-7B", 576, 4096)):
    rng = torch.Generator().manual_seed(0)
    watch = fit(torch.randn(400, 2 * width, generator=rng))
    features = torch.randn(tokens, width, generator=rng)
    runs = timeit.repeat(lambda: watch.score(features), number=20, repeat=5)  # noqa: B023 - used at once
    print(f"{name}: {tokens} x {width}, {1000 * min(runs) / 20:.2f} ms")
