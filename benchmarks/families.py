"""Write docs/families.md's table from the tests' own results.

    python benchmarks/families.py [ROW ...]    # rows: runs the tests of these, and keeps the others as they are

Runs the tests that prove the families, and counts for each cell how many of its tests passed; a cell that is not
whole says so. Exits with 1 if any is not.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from tables import ROOT, Results, mark, results, write

sys.path[:0] = [str(ROOT / "tests")]

import recent  # noqa: E402
from test_inspect import EXITS  # noqa: E402
from test_prompts import VERIFIED  # noqa: E402

os.environ["LAYERALIGN_EVERY_FAMILY"] = "1"
PAGE = ROOT / "docs" / "families.md"
TESTS = ("tests/test_families.py", "tests/test_prompts.py", "tests/test_inspect.py", "tests/test_load.py")
ROWS = {  # what is shown -> the tiny model, the public checkpoint
    "LLaVA-1.5": ("llava", "llava-hf/llava-1.5-7b-hf"),
    "LLaVA-NeXT (Mistral)": ("llava_next", "llava-hf/llava-v1.6-mistral-7b-hf"),
    "LLaVA-NeXT (Vicuna)": ("llava_next_vicuna", "llava-hf/llava-v1.6-vicuna-7b-hf"),
    "Llama 3.2 Vision, `transformers`": ("mllama", "meta-llama/Llama-3.2-11B-Vision-Instruct"),
    "Llama 3.2 Vision, `vendor`": ("mllama-vendor", "meta-llama/Llama-3.2-11B-Vision-Instruct"),
    "LLaVA-OneVision": ("llava_onevision", "llava-hf/llava-onevision-qwen2-7b-ov-hf"),
    "InternVL": ("internvl", "OpenGVLab/InternVL3-1B-hf"),
    "PaliGemma": ("paligemma", "google/paligemma-3b-mix-224"),
    "PaliGemma 2": ("paligemma2", "google/paligemma2-3b-mix-224"),
    "Gemma 3": ("gemma3", "google/gemma-3-4b-it"),
    "Idefics3": ("idefics3", "HuggingFaceM4/Idefics3-8B-Llama3"),
    "SmolVLM": ("smolvlm", "HuggingFaceTB/SmolVLM-Instruct"),
    "Qwen2.5-VL": ("qwen2_5_vl", "Qwen/Qwen2.5-VL-7B-Instruct"),
    "Qwen3-VL, `drop`": ("qwen3_vl", "Qwen/Qwen3-VL-8B-Instruct"),
    "Qwen3-VL, `hold`": ("qwen3_vl-hold", "Qwen/Qwen3-VL-8B-Instruct"),
}
RECENT = {  # what is shown -> the tiny model; the checkpoint's config and template are not kept here
    "Qwen3.5": "qwen3_5", "Qwen3.5, experts": "qwen3_5_moe", "Qwen3-VL, experts": "qwen3_vl_moe", "Gemma 4": "gemma4",
    "Mistral 3": "mistral3", "GLM-4.1V": "glm4v", "GLM-4.5V": "glm4v_moe", "GLM-4.6V": "glm46v", "Llama 4": "llama4",
    "ViP-LLaVA": "vipllava", "LLaVA, layers joined": "llava_joined", "Granite 4 Vision": "granite4_vision", "Molmo 2": "molmo2",
    "BLIP-2": "blip2", "Idefics2": "idefics2", "BLIP": "blip", "InstructBLIP": "instructblip", "Idefics 1": "idefics",
    "Kosmos-2": "kosmos2", "Kosmos-2.5": "kosmos2_5",
}  # fmt: skip
ROWS |= {shown: (model, "–") for shown, model in RECENT.items()}
assert set(RECENT.values()) == set(recent.FAMILIES)
CELLS = {
    "exact at default": (
        "default_exit_features",
        "default_exit_tokens_and_logits",
        "default_exit_greedy_answers",
    ),
    "exact at l": ("every_exit", "one_exit_alone_is_the_same", "deepstack"),
    "blocks run = l": ("blocks_past_the_deepest_exit_do_not_run",),
    "mixed batch": ("a_mixed_batch_equals_each_row_alone", "training_sees_what_was_generated"),
    "nothing left": ("nothing_is_left_on_the_model",),
    "adapter, `align`": ("an_adapter_trains_and_loads_and_touches_no_vision",),
}


def lines(found: Results, rows: Sequence[str]) -> Iterator[str]:
    """The table; rows that were not run are the page's own."""
    kept = {
        line.split("|")[1].strip(): line for line in PAGE.read_text().splitlines() if line.startswith("| ")
    }
    heads = ["family", "checkpoint", "exits at its size (default)", *CELLS, "loads by name", "prompt"]
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for family, (model, checkpoint) in ROWS.items():
        if family not in rows:
            yield from [kept[family]] if family in kept else []
            continue
        told = EXITS.get(checkpoint)
        right = told is not None and found.get(("real_sizes_have_the_right_exits", checkpoint))
        exits = f"{told[0]} ({told[1]})" if told and right else "–" if told is None else "**wrong**"
        cells = [
            mark([found[name, model] for name in names if (name, model) in found]) for names in CELLS.values()
        ]
        plain = model.partition("-")[0]
        name = mark([found.get(("published_checkpoints_load_by_name", checkpoint), False)])
        golden = mark([found.get(("golden", plain), False)])
        prompt = golden if plain in VERIFIED else f"{golden} unverified"
        shown = f"`{checkpoint}`"
        if family in RECENT:
            shown = name = prompt = "–"
        yield f"| {' | '.join([family, shown, exits, *cells, name, prompt])} |"


def main() -> int:
    """Run, write, and say whether every cell is whole."""
    about = f"transformers {version('transformers')}, torch {version('torch')}"
    rows = sys.argv[1:] or list(ROWS)
    some = (
        [
            "-k",
            " or ".join(
                f"[{name}]"
                for row in rows
                for name in (*ROWS[row], ROWS[row][0].partition("-")[0])
                if name != "–"
            ),
        ]
        if sys.argv[1:]
        else []
    )
    return int(not write("families.md", "families.py", about, list(lines(results([*TESTS, *some]), rows))))


if __name__ == "__main__":
    sys.exit(main())
