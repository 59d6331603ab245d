"""Greedy answers of mlx-vlm: runs in an environment that has it; see mlx_answers.py."""

import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_vlm.utils import load_model

folder, inputs, longest, end = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
mx.set_default_device(mx.cpu)
model = load_model(folder)
given = np.load(inputs)
for at in range(len(given.files) // 2):
    tokens, said = given[f"ids{at}"].tolist(), []
    while len(said) < longest and end not in said:
        out = model(mx.array([tokens + said]), mx.array(given[f"pixels{at}"]), None)
        said.append(int(mx.argmax(out.logits[0, -1])))
    print(*said)
