"""The targets of fuzz.py: every parser of bytes that another person wrote, with small valid inputs.

A target is a function of a folder, in which it prepares what the parser needs; see `common.Target`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import published
from fuzz_targets import files, models, replies
from fuzz_targets.common import Target

TARGETS: dict[str, Callable[[Path], Target]] = {
    "case file, JSON Lines": files.case_lines, "case file, CSV": files.case_table, "policy": files.policy, "config of a command": files.command_config,
    "deployment, YAML": files.deployment_yaml, "deployment, command": files.deployment_command,
    "deployment, Modelfile": files.deployment_modelfile, "deployment, JSON": files.deployment_json, "fleet": files.fleet,
    "labels": files.labels, "quality of a judge": files.quality, "GGUF header": models.vision_file, "rubric": files.rubric,
    "training record": models.training_record, "adapter_config.json": models.adapter_config, "config.json, loaded": models.model_config,
    "config.json, checked": models.checked_config, "safetensors header": models.weights_header, "safetensors index": models.weights_index,
    "picture": files.picture, "archive, download record, pairs": files.archive, "judge server's body": replies.server_reply,
    "judge's reply": replies.reply, "exits": replies.exits, "answers": replies.texts,
    **{f"benchmark {name}": (lambda work, name=name: files.benchmark(work, name)) for name in published.MAKE},
}  # fmt: skip
