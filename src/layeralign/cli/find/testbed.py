"""`testbed build`: a bundled model again, from a seed."""

from __future__ import annotations

import time
from typing import Literal

from cyclopts import App

from layeralign._util.terminal import say
from layeralign._util.text import printable
from layeralign.cli.options import Out

testbed_app = App(name="testbed", help="Build a bundled model again, from a seed.")


@testbed_app.command(name="build")
def testbed_build(
    world: Literal["small", "natural"],
    *,
    out: Out,
    seed: int = 0,
    safety: Literal["projector", "language"] = "projector",
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> None:
    """Train a bundled model from a seed, into a folder that scan reads. See docs/testbed.md.

    The same command resumes a build of natural.

    Parameters
    ----------
    world
        The small testbed, whose model ships; or the natural testbed, whose weight changes ship.
    out
        Folder of the model; for natural also of every stage's weights.
    seed
        Seed of every random draw.
    safety
        What the safety stage of natural trains: the projector, or the language model as a control.
    dtype
        Number format of natural's frozen language model. bfloat16 is faster on a CPU with AMX, and much
        slower on one without.
    """
    say(f"testbed: building the {world} testbed from seed {seed}", stderr=True)
    start = time.monotonic()
    if world == "small":
        from layeralign.testbed.build import Recipe, build

        build(seed, out, Recipe())
        model = out
    else:
        from layeralign.testbed.natural.build import Recipe as Stages
        from layeralign.testbed.natural.build import build_folder

        model = build_folder(seed, out, Stages(safety=safety, dtype=dtype))
    print(
        printable(f"model: {model}, {time.monotonic() - start:.0f} s (layeralign scan --model {model} ...)")
    )
