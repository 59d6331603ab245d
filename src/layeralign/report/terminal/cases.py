"""Cases and benchmarks, for a terminal; harmful text is not shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich import box
from rich.table import Table
from rich.text import Text

from layeralign._util.text import printable, redacted
from layeralign.cases.background import WHITE, parse
from layeralign.cases.case import BORDERLINE, Case
from layeralign.cases.pictures import FilePicture
from layeralign.cases.readers.reader import BENCHMARKS


def known(cache: Path) -> Table:
    """Return a table of every public benchmark; `cache` is the folder of downloaded benchmarks."""
    made = Table(
        box=box.SIMPLE_HEAD,
        caption=f"--cases NAME fetches it once and keeps it in {printable(str(cache))}; "
        "--cases NAME:FOLDER reads your own copy. pairs:20x10:FOLDER combines 20 prompts with 10 pictures, "
        "all 200.",
        caption_justify="left",
    )
    made.add_column("name", no_wrap=True)
    made.add_column("kind", no_wrap=True)
    made.add_column("source, files, licence", overflow="fold")
    for one in BENCHMARKS.values():
        source = one.source + (f" @ {one.revision[:12]}" if one.revision else "")
        by_hand = [f"fetch by hand: {one.by_hand}"] if one.by_hand else []
        told = [source, ", ".join(one.files), f"licence: {one.licence}", *by_hand]
        made.add_row(one.name, one.kind, "\n".join(told), end_section=True)
    return made


def table(cases: Sequence[Case]) -> Table:
    """Return counts per kind and category, with and without pictures, and the lengths of the prompts."""
    pictures = {case.picture.sha256 for case in cases if case.picture}
    prompts = {case.prompt for case in cases}
    made = Table(
        box=box.SIMPLE_HEAD,
        title=f"{len(cases)} cases: {len(prompts)} prompts, {len(pictures)} pictures",
        title_justify="left",
    )
    for head in ("kind", "category", "cases", "with picture", "prompt, characters"):
        made.add_column(head, justify="left" if head in ("kind", "category") else "right")
    for (kind, category), n in sorted(Counter((case.kind, case.category) for case in cases).items()):
        some = [case for case in cases if (case.kind, case.category) == (kind, category)]
        lengths = [len(case.prompt) for case in some]
        told = f"{min(lengths)}–{max(lengths)}, median {median(lengths):.0f}"
        made.add_row(
            kind, Text(printable(category, 40)), str(n), str(sum(c.picture is not None for c in some)), told
        )
    return made


def remarks(cases: Sequence[Case], background: str = WHITE) -> list[str]:
    """Return what the cases cannot measure though a user may expect it, and `picture_remarks`."""
    found = picture_remarks(cases, background)
    if cases and not any(case.picture for case in cases):
        found.append("no case has a picture, so every exit of the encoder answers the same")
    benign = [case for case in cases if case.kind == "benign"]
    if benign and not any(case.borderline for case in benign):
        found.append(
            f"none of the {len(benign)} benign cases is of category {' or '.join(BORDERLINE)}, "
            "so over-refusal is not measured"
        )
    return found


def picture_remarks(cases: Sequence[Case], background: str = WHITE) -> list[str]:
    """Return how many pictures have transparent pixels, and how many are animations.

    Raises:
        LayeralignError: `background` is not a colour.
    """
    seen = {case.picture.sha256: case.picture for case in cases if isinstance(case.picture, FilePicture)}
    colour, of = parse(background), f"of {len(seen)} pictures"
    found = []
    if n := sum(picture.transparent for picture in seen.values()):
        name = "white" if colour == WHITE else colour
        found.append(f"{n} {of} have transparent pixels; they are shown on {name} (--background)")
    if n := sum(picture.animated for picture in seen.values()):
        found.append(f"{n} {of} are animations; only the first frame is shown")
    return found


def preview(cases: Sequence[Case], first: int) -> Table:
    """Return the first `first` cases; letters of harmful prompts are replaced by dots."""
    made = Table(box=box.SIMPLE_HEAD, title=f"first {min(first, len(cases))}", title_justify="left")
    for head in ("kind", "category", "picture", "prompt", "reference"):
        made.add_column(head, overflow="fold", min_width=len(head))
    for case in cases[:first]:
        hidden = redacted if case.kind == "harmful" else printable
        shown = (
            printable(case.category, 40),
            _picture(case),
            hidden(case.prompt, 100),
            hidden(case.reference or "", 30),
        )
        made.add_row(case.kind, *map(Text, shown))
    return made


def _picture(case: Case) -> str:
    """Return the picture's size, with its file's name where it is a file."""
    if case.picture is None:
        return ""
    name = Path(case.picture.path).name
    return f"{printable(name, 40)} {'×'.join(map(str, case.picture.open().size))}".strip()
