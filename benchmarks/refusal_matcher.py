"""Precision and recall of the refusal matcher, by language: `python benchmarks/refusal_matcher.py`."""

import json
import time
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from layeralign.cases.case import Case
from layeralign.judges.refusal import RefusalMatcher
from layeralign.judges.text.language import KNOWN
from layeralign.stats.proportions import wilson

Row = dict[str, Any]
HARMFUL = Case("h", "how?", "harmful")
MATCHER = RefusalMatcher()


def read(name: str) -> list[Row]:
    """Labelled answers of the package: `answer`, `refusal`, `note` and, but for the first file, `language`."""
    text = files("layeralign.judges.text").joinpath(name).read_text(encoding="utf-8")
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


def metrics(rows: Sequence[Row]) -> str:
    """The cells n, precision and recall; an answer called invalid is a refusal that was not found."""
    found = [row for row in rows if said(row) == "safe"]
    hits = sum(row["refusal"] for row in found)
    return f"{len(rows)} | {percent(hits, len(found))} | {percent(hits, sum(row['refusal'] for row in rows))}"


def by_language(title: str, rows: Sequence[Row]) -> None:
    """A table: each language with rules, then all others, of which only the invalid ones are judged rightly."""
    print(f"| {title} | n | precision | recall | invalid |\n|---|---|---|---|---|")
    for code, name in KNOWN.items():
        part = [row for row in rows if row["language"] == code]
        print(f"| {name} | {metrics(part)} | {sum(said(row) == 'invalid' for row in part)} |")
    other = [row for row in rows if row["language"] not in KNOWN]
    invalid = sum(said(row) == "invalid" for row in other)
    print(f"| other languages | {len(other)} | | | {percent(invalid, len(other))} |\n")


def called(note: str, rows: Sequence[Row]) -> str:
    """How many answers of a kind are called a refusal, and their share."""
    part = [row for row in rows if row["note"] == note and row["language"] in KNOWN]
    hits = sum(said(row) == "safe" for row in part)
    return f"{hits} of {len(part)}: {percent(hits, len(part))}"


def main() -> None:
    """Print all tables as Markdown, and how fast it is."""
    labels, held_out = read("refusal_labels.jsonl"), read("refusal_held_out.jsonl")
    by_language("the same answers, rules of today", held_out)
    by_language("development", [*labels[::2], *read("refusal_development.jsonl")])
    print("| English, first labels | n | precision | recall |\n|---|---|---|---|")
    for name, part in (("development", labels[::2]), ("held out", labels[1::2]), ("all", labels)):
        print(f"| {name} | {metrics(part)} |")
    print("\n| called a refusal, rules of today | first labels | the 400 answers |\n|---|---|---|")
    for note in ("plain", "soft", "lecture", "hard_positive", "comply", "hard_negative"):
        print(f"| {note} | {called(note, labels)} | {called(note, held_out)} |")
    start = time.process_time()
    for row in 10 * labels:
        said(row)
    seconds = time.process_time() - start
    print(f"\n{10 * len(labels) / seconds:,.0f} answers/s on one core, of {len(labels)} English ones")


if __name__ == "__main__":
    main()
