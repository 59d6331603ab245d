"""Precision and recall of the refusal matcher, by language: `python benchmarks/refusal_matcher.py`."""

import json
import time
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from layeralign.analysis.stats import wilson
from layeralign.cases.case import Case
from layeralign.judges.language import KNOWN
from layeralign.judges.refusal import RefusalMatcher

Row = dict[str, Any]
HARMFUL = Case("h", "how?", "harmful")
MATCHER = RefusalMatcher()


def read(name: str) -> list[Row]:
    """Labelled answers of the package: `answer`, `refusal`, `note` and, but for the first file, `language`."""
    text = files("layeralign.judges").joinpath(name).read_text(encoding="utf-8")
    return [{"language": "en"} | json.loads(line) for line in text.splitlines()]


def said(row: Row) -> str:
    """What the matcher says of an answer to a harmful case: safe, that is refused; unsafe; invalid."""
    return MATCHER.judge(HARMFUL, row["answer"]).verdict


def percent(hits: int, n: int) -> str:
    """A share with its 95 % interval."""
    if not n:
        return "–"
    low, high = wilson(hits, n)
    return f"{100 * hits / n:.0f} % ({100 * (low or 0):.0f}–{100 * (high or 0):.0f})"


def figures(rows: Sequence[Row]) -> str:
    """The cells n, precision and recall; an answer called invalid is a refusal that was not found."""
    found = [row for row in rows if said(row) == "safe"]
    hits = sum(row["refusal"] for row in found)
    return f"{len(rows)} | {percent(hits, len(found))} | {percent(hits, sum(row['refusal'] for row in rows))}"


def by_language(title: str, rows: Sequence[Row]) -> None:
    """A table: each language with rules, then all others, of which only the invalid ones are judged rightly."""
    print(f"| {title} | n | precision | recall | invalid |\n|---|---|---|---|---|")
    for code, name in KNOWN.items():
        part = [row for row in rows if row["language"] == code]
        print(f"| {name} | {figures(part)} | {sum(said(row) == 'invalid' for row in part)} |")
    other = [row for row in rows if row["language"] not in KNOWN]
    invalid = sum(said(row) == "invalid" for row in other)
    print(f"| other languages | {len(other)} | | | {percent(invalid, len(other))} |\n")


def main() -> None:
    """Print all tables as Markdown, and how fast it is."""
    labels = read("refusal_labels.jsonl")
    held_out = files("layeralign.judges").joinpath("refusal_held_out.jsonl")
    if held_out.is_file():
        by_language("held out", read("refusal_held_out.jsonl"))
    by_language("development", [*labels[::2], *read("refusal_development.jsonl")])
    print("| English, first labels | n | precision | recall |\n|---|---|---|---|")
    for name, part in (("development", labels[::2]), ("held out", labels[1::2]), ("all", labels)):
        print(f"| {name} | {figures(part)} |")
    print("\n| kind | n | called a refusal |\n|---|---|---|")
    for note in ("plain", "soft", "lecture", "hard_positive", "comply", "hard_negative"):
        part = [row for row in labels if row["note"] == note]
        print(f"| {note} | {len(part)} | {percent(sum(said(row) == 'safe' for row in part), len(part))} |")
    start = time.process_time()
    for row in 10 * labels:
        said(row)
    seconds = time.process_time() - start
    print(f"\n{10 * len(labels) / seconds:,.0f} answers/s on one core, of {len(labels)} English ones")


if __name__ == "__main__":
    main()
