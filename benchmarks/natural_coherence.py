"""Whether the natural testbed's forbidden answers make sense to the language model before any training.

    python benchmarks/natural_coherence.py out/natural/natural-test

RUN is a run of `benchmarks/natural.py`. Its answers to requests about food that the rule `topic` calls unsafe are
judged by the judge `coherence` with SmolLM2-135M-Instruct as it was published, and judged again with their words
shuffled, which must fail. Needs `layeralign[natural]`.
"""

import argparse
import os
import platform
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from transformers import LlamaConfig, LlamaForCausalLM

import layeralign
from layeralign.cases.case import Case
from layeralign.judges.coherence import CoherenceJudge
from layeralign.stats.proportions import wilson
from layeralign.testbed.natural import parts

Asked = tuple[Case, str]


def untouched(folder: Path) -> Path:
    """The language model as it was published, as a checkpoint folder."""
    if not folder.exists():
        read, names = parts.language(parts.fetch(parts.LANGUAGE))
        config = LlamaConfig(
            **{name: value for name, value in read.config.to_dict().items() if name != "quantization_config"}
        )
        model = LlamaForCausalLM(
            config
        )  # the one that was read cannot be saved: it knows that its file was quantised
        model.load_state_dict(read.state_dict())
        model.save_pretrained(folder)
        names.save_pretrained(folder)
    return folder


def cells(judge: CoherenceJudge, asked: Sequence[Asked]) -> str:
    """Share called coherent, and the median of the log perplexity."""
    made = judge.judge_all(asked)
    coherent = sum(word.coherent is True for word in made)
    low, high = wilson(coherent, len(made))
    costs = [word.scores["log_perplexity"] for word in made if word.scores]
    return f"{100 * coherent / len(made):.1f} [{100 * (low or 0):.0f}, {100 * (high or 0):.0f}] | {np.median(costs):.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run")
    parser.add_argument(
        "--model", type=Path, default=Path("out/smollm2"), help="where the language model is kept"
    )
    given = parser.parse_args()
    rows = layeralign.to_pandas(given.run)
    rows = rows[(rows["kind"] == "harmful") & (rows["topic.verdict"] == "unsafe")]
    judge, rng = CoherenceJudge.load(str(untouched(given.model))), random.Random(0)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores; log perplexity up to "
          f"{judge.limit:.2f} and a repetition up to 0.5 are coherent\n")  # fmt: skip
    print("| exit | answers | coherent, % | log perplexity | words shuffled: coherent, % | log perplexity |")
    print("|---" * 6 + "|")
    for exit, some in rows.groupby("exit"):
        asked = [
            (Case(str(number), prompt, "benign"), answer)
            for number, (prompt, answer) in enumerate(zip(some["prompt"], some["answer"], strict=True))
        ]
        mixed = [(case, " ".join(rng.sample(words := answer.split(), len(words)))) for case, answer in asked]
        print(f"| {exit} | {len(asked)} | {cells(judge, asked)} | {cells(judge, mixed)} |", flush=True)


if __name__ == "__main__":
    main()
