"""`watch`: what is usual of an exit's features, for the running system."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from layeralign._util.terminal import put, say
from layeralign._util.text import printable
from layeralign.cli.options import Device, Dtype, ModelOptions, Out  # noqa: F401 - as in cli.options

if TYPE_CHECKING:
    from rich.table import Table

    from layeralign.watching import Watch


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WatchOptions(ModelOptions):
    """Model, pictures, the watched exit, and the file."""

    cases: str
    "Cases whose pictures are like those that the model gets: a file, `testbed`, or a benchmark."
    out: Out
    "File to write, such as watch.safetensors."
    exit: Annotated[str, Parameter(allow_leading_hyphen=True)] = "default"
    "Exit that is approved: default, or its number."
    alpha: float = 0.01
    "Share of usual pictures that may be reported, 0 to 1."
    limit: int | None = None
    "Largest number of cases."
    adapter: Path | None = None
    "Folder of the LoRA adapter that is deployed with the model."


def watch(options: WatchOptions) -> None:
    """Learn what a picture's features look like at the approved exit, so that a server notices another exit.

    Prints the share of pictures that is noticed at each other exit. In the server, `Watch.load(FILE)` and
    `watch.usual(features)` need the features alone; see docs/runtimes.md.
    """
    vlm = options.load(options.adapter)
    from layeralign.api import watch as learn

    made = learn(vlm, options.cases, options.out, exit=options.exit, alpha=options.alpha, limit=options.limit)
    put(_table(made))
    say(printable(f"watch: {options.out}"))


def _table(watch: Watch) -> Table:
    """Return a table of the share of pictures that is noticed at each other exit, with its 95 % interval."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from layeralign.stats.proportions import wilson

    about = watch.about
    held = about["pictures"] // 2
    made = Table(
        box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left",
        title=Text(printable(f"{about['model']}: watch of exit {about['exit']}"), "bold"),
        caption=Text(
            f"Pictures above the limit, of {held} that were not fitted. At the watched exit it is at most "
            f"{100 * about['alpha']:g} % of usual pictures. Other kinds of pictures are noticed, too."
        ),
    )  # fmt: skip
    for name in ("exit", "noticed %", "95 %"):
        made.add_column(name, justify="right", no_wrap=True)
    for name, share in about["noticed"].items():
        low, high = wilson(round(share * held), held)
        ends = "" if low is None or high is None else f"{100 * low:.0f}–{100 * high:.0f}"
        made.add_row(name, f"{100 * share:.0f}", ends)
    return made
