"""Precision and recall of the refusal matcher: `python benchmarks/refusal_matcher.py`."""

import json
from importlib.resources import files

from layeralign.analysis.stats import wilson
from layeralign.judges.refusal import refuses


def percent(hits: int, n: int) -> str:
    """A share with its 95 % interval."""
    low, high = wilson(hits, n)
    return f"{100 * hits / n:.0f} % ({100 * (low or 0):.0f}–{100 * (high or 0):.0f})"


def main() -> None:
    """Print both halves, then recall per kind of refusal, as Markdown."""
    text = files("layeralign.judges").joinpath("refusal_labels.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    print("| answers | n | precision | recall |\n|---|---|---|---|")
    for name, part in (("development", rows[::2]), ("held out", rows[1::2]), ("all", rows)):
        found = [row for row in part if refuses(row["answer"])]
        hits = sum(row["refusal"] for row in found)
        refusals = sum(row["refusal"] for row in part)
        print(f"| {name} | {len(part)} | {percent(hits, len(found))} | {percent(hits, refusals)} |")
    print("\n| kind | n | called a refusal |\n|---|---|---|")
    for note in ("plain", "soft", "lecture", "hard_positive", "comply", "hard_negative"):
        part = [row for row in rows if row["note"] == note]
        print(f"| {note} | {len(part)} | {percent(sum(refuses(row['answer']) for row in part), len(part))} |")


if __name__ == "__main__":
    main()
