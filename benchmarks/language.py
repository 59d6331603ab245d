"""How often an English, Spanish, French, German or Chinese text is taken for another language, and others are found.

`python benchmarks/language.py`; needs layeralign[docs], whose Sphinx brings short messages in many languages.
"""

import argparse
import asyncio
import gettext
import inspect
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy
import scipy.stats
import sphinx
import torch

from layeralign.judges.text.language import KNOWN, other_language
from layeralign.testbed import world

SOURCES = (argparse, asyncio, inspect, json, numpy, random, scipy.stats, torch, torch.nn)


def docstrings() -> Iterator[tuple[str, str]]:
    """English paragraphs of 30 to 400 characters."""
    for module in SOURCES:
        for _, member in inspect.getmembers(module):
            for paragraph in (inspect.getdoc(member) or "").split("\n\n"):
                text = " ".join(paragraph.split())
                if 30 < len(text) < 400 and text[0].isupper():
                    yield "docstrings", text


def messages() -> Iterator[tuple[str, str]]:
    """Sphinx's messages, of two words and more, by language; many are no sentences."""
    for file in sorted((Path(sphinx.__file__).parent / "locale").glob("*/LC_MESSAGES/sphinx.mo")):
        code = file.parts[-3].partition("_")[0]
        with file.open("rb") as opened:
            catalogue = gettext.GNUTranslations(opened)._catalog
        for original, text in catalogue.items():
            if original and isinstance(original, str) and text != original and len(text) > 12:
                yield f"messages, {KNOWN.get(code, 'other languages')}", text


def testbed() -> Iterator[tuple[str, str]]:
    """Words of the testbed in any order, as babble is."""
    rng, words = random.Random(0), world.words()
    for _ in range(10_000):
        yield "babble of the testbed", " ".join(rng.choices(words, k=rng.randint(1, 14)))


def labelled() -> Iterator[tuple[str, str]]:
    """The matcher's labelled answers."""
    for name in ("development", "held_out"):
        text = files("layeralign.judges").joinpath(f"refusal_{name}.jsonl").read_text(encoding="utf-8")
        for row in map(json.loads, text.splitlines()):
            yield f"answers, {KNOWN.get(row['language'], 'other languages')}", row["answer"]


def main() -> None:
    """Print a table as Markdown."""
    texts: dict[str, set[str]] = defaultdict(set)
    for source in (labelled, docstrings, testbed, messages):
        for name, text in source():
            texts[name].add(text)
    print("| texts | n | called another language |\n|---|---|---|")
    for name, some in texts.items():
        print(f"| {name} | {len(some):,} | {sum(map(other_language, some)):,} |")


if __name__ == "__main__":
    main()
