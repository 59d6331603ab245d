"""Every method of `align` in one table and one picture, from the rows that align.py has measured.

python benchmarks/align.py --only rloo,grpo,dpo     # adds rows to results/align.md, by hand
python benchmarks/methods.py --picture docs/methods.png > benchmarks/results/methods.md
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results" / "align.md"
METHODS = {
    "lppo": ("a reward", "yes", "language model"),
    "rloo": ("a reward", "yes", "language model"),
    "grpo": ("a reward", "yes", "language model"),
    "dpo": ("right answers", "yes", "language model"),
    "sft": ("right answers", "yes", "language model"),
    "consistency": ("the model's own answers", "yes", "language model"),
    "repair": ("the model's own answers", "yes", "projector"),
    "steer": ("the model's own states", "yes", "nothing"),
    "latent": ("right answers", "no", "language model"),
    "sft-default": ("right answers", "no", "language model"),
    "lppo-120": ("a reward", "yes", "language model"),
}
"""Method (and its number of steps, if it is none of the shared settings) -> what it learns from, whether it sees other exits than the default one, and what it trains."""
DEFAULT = 7
CHANGES = ("harmful refused", "authorised refused", "benign refused", "questions right")
COLOURS = [
    "#c8102e",
    "#e07a1f",
    "#b8860b",
    "#7a3e9d",
    "#1f5fa8",
    "#2a9d8f",
    "#0b7a3b",
    "#555555",
    "#d6459f",
    "#222222",
    "#6b1020",
]


@dataclass(frozen=True)
class Measured:
    """One training, in percent: shares at each exit, and the changes at the default exit as they are printed."""

    asr: Sequence[float]
    over_refusal: Sequence[float]
    questions: str
    changes: Mapping[str, str]
    seconds: str

    @property
    def worst(self) -> float:
        """The largest ASR at any exit."""
        return max(self.asr)


def read(file: Path) -> dict[str, Measured]:
    """Name of a run -> its row in align.py's table."""
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 14 and re.match(r"[\d*]+( [\d*]+){8}$", cells[1]):
            asr, over = ([float(v.strip("*")) for v in cells[at].split()] for at in (1, 4))
            changes = dict(zip(CHANGES, cells[7:11], strict=True))
            found[cells[0]] = Measured(asr, over, cells[5], changes, cells[13])
    return found


def shares(values: Sequence[Sequence[float]], default: int = DEFAULT) -> str:
    """Means over seeds at each exit; the exit in place `default` is bold."""
    means = [fmean(column) for column in zip(*values, strict=True)]
    return " ".join(f"**{v:.0f}**" if at == default else f"{v:.0f}" for at, v in enumerate(means))


def largest_change(some: Sequence[Measured]) -> str:
    """The change at the default exit that is furthest from 0, over metrics and seeds."""
    name, change = max(
        (item for one in some for item in one.changes.items()),
        key=lambda item: abs(float(item[1].split()[0])),
    )
    return f"{name} {change}"


def row(method: str, some: Sequence[Measured]) -> str:
    """A method as Markdown."""
    worst = " ".join(f"{one.worst:.0f}" for one in some)
    after = fmean(float(one.questions.split()[-1]) for one in some)
    return (
        f"| `{method}` | {' | '.join(METHODS[method])} | {worst} | {shares([one.asr for one in some])} | "
        f"{shares([one.over_refusal for one in some])} | {after:.0f} | {largest_change(some)} | "
        f"{fmean(float(one.seconds) for one in some):.0f} |"
    )


def picture(
    made: Mapping[str, Sequence[Measured]], before: Measured, file: Path, *, refused: str, title: str
) -> None:
    """ASR at the worst exit against over-refusal, a mean over exits; one point per seed."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    styles = dict(zip(METHODS, zip(COLOURS, "osD^vP*Xph<", strict=True), strict=True))
    for method, some in made.items():
        colour, marker = styles[method]
        points = [(fmean(one.over_refusal), one.worst) for one in some]
        axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=7, label=method, clip_on=False)
    axes.plot(fmean(before.over_refusal), before.worst, "k*", markersize=14, label="before", clip_on=False)
    axes.set(xlabel=f"{refused} refused, mean over exits, %", ylabel="ASR at the worst exit, %")
    axes.set(ylim=(-2, 100), xlim=(0, max(10.0, axes.get_xlim()[1])))
    axes.grid(color="#e5e7eb")
    axes.legend(frameon=False, fontsize=8, ncols=2)
    axes.set_title(title, loc="left", weight="bold")
    figure.savefig(file, dpi=130)


def main() -> None:
    """Print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    rows = read(RESULTS)
    made = {
        method: [rows[name] for seed in range(3) if (name := f"{method} seed {seed}") in rows]
        for method in METHODS
    }
    made = {method: some for method, some in made.items() if some}
    before = rows["start (testbed)"]
    print("# Every method in one table\n")
    print("`python benchmarks/methods.py`, from the rows of [align.md](align.md), whose dates and commands stand there. Sealed test:\n"
          "2000 cases at every exit, 4000 at the default exit. Percent, means over the seeds; the default exit is bold.\n")  # fmt: skip
    print("| method | learns from | sees other exits | trains | ASR at the worst exit, by seed | ASR, exits 0-8 | "
          "authorised refused, exits 0-8 | questions right | largest change at the default exit | CPU s |")  # fmt: skip
    print("|---" * 10 + "|")
    print(
        f"| before | | | | {before.worst:.0f} | {shares([before.asr])} | {shares([before.over_refusal])} | | | |"
    )
    for method, some in made.items():
        print(row(method, some))
    if arguments.picture:
        picture(made, before, arguments.picture, refused="authorised requests",
                title="Each method with three seeds, sealed test")  # fmt: skip


if __name__ == "__main__":
    main()
