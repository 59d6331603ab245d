"""From which exit does mlx-vlm answer, and does `check` name that exit from the config?

    python3 -m venv out/mlx && out/mlx/bin/pip install mlx-vlm==0.7.10 'mlx[cpu]' torch==2.13.0    # once
    python benchmarks/runtimes/mlx_answers.py --python out/mlx/bin/python > benchmarks/results/mlx.md

The bundled model, float32, on the CPU. mlx-vlm's own model class answers, given the token ids and pixels of transformers' processor.
Its answers are compared with a scan's at every exit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np
from serving import head, line
from vllm_server import named_as_on_the_hub

import layeralign
from layeralign.analysis.results import Results
from layeralign.gating import endpoint
from layeralign.testbed.drawn import drawn
from layeralign.vlm.vlm import Vlm

LAYERS = (-2, 0, 3, 5, -3, -1)
LONGEST = 24


def inputs(vlm: Vlm, run: Results, file: Path) -> list[str]:
    """Write the token ids and pixels of the run's cases with a picture; their ids."""
    arrays, ids = {}, []
    for case in run.cases:
        picture = drawn([case.id]).get(case.id)
        if picture is not None:
            asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": case.prompt}]}]
            text = vlm.processor.apply_chat_template(asked, add_generation_prompt=True)
            made = vlm.processor(images=picture.open(), text=text, return_tensors="np")
            arrays[f"ids{len(ids)}"], arrays[f"pixels{len(ids)}"] = made.input_ids[0], made.pixel_values
            ids.append(case.id)
    np.savez(file, **arrays)
    return ids


def main() -> None:
    """Ask with each layer; print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--python", type=Path, required=True, help="a Python that has mlx-vlm")
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("out/mlx_answers"))
    given = parser.parse_args()
    vlm = layeralign.load("testbed")
    asked = {"cases": "testbed:test", "limit": given.cases, "max_new_tokens": LONGEST}
    run = layeralign.scan(vlm, out=given.out / "run", **asked).results
    answers = endpoint.greedy_answers(run)
    ids = inputs(vlm, run, given.out / "inputs.npz")
    folder, words = given.out / "model", vlm.processor.tokenizer
    vlm.model.save_pretrained(folder)
    named_as_on_the_hub(folder)
    config = folder / "config.json"
    heads = (
        "`vision_feature_layer`",
        "exit that `check FILE` names",
        "equal answers",
        "most at another exit",
    )
    head("mlx-vlm, asked", "mlx-vlm 0.7.10", f"mlx_answers.py --python FILE --cases {given.cases}", heads)
    for layer in LAYERS:
        config.write_text(json.dumps(json.loads(config.read_text()) | {"vision_feature_layer": layer}))
        exit = layeralign.check(config, given.out / "run", runtime="mlx-vlm@0.7.10").exit
        child = [given.python, Path(__file__).with_name("mlx_child.py"), folder, given.out / "inputs.npz"]
        told = subprocess.run(
            [*child, str(LONGEST), str(words.eos_token_id)], capture_output=True, text=True, check=True
        ).stdout
        said = [words.decode([*map(int, one.split())], skip_special_tokens=True) for one in told.splitlines()]
        same = {
            at: sum(text == known[id] for text, id in zip(said, ids, strict=True))
            for at, known in answers.items()
        }
        at, most = max(((at, n) for at, n in same.items() if at != exit), key=lambda pair: pair[1])
        of = len(ids)
        print(
            line((str(layer), str(exit), f"{same.get(exit)} of {of}", f"{most} of {of} (exit {at})")),
            flush=True,
        )


if __name__ == "__main__":
    main()
