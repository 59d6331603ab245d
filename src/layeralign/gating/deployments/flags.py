"""Flags of vLLM's and SGLang's servers: which choose the model, and which leave its exit as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layeralign._util import strict_yaml
from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.gating.deployments.place import Undecided

OVERRIDES = {"vllm": "hf-overrides", "sglang": "json-model-override-args"}
"""Runtime -> the flag that changes the model's config, JSON."""
_MODEL = {"vllm": ("model",), "sglang": ("model", "model-path")}
_SWITCHES = """
    enforce-eager disable-log-requests disable-log-stats enable-log-requests
    enable-prefix-caching no-enable-prefix-caching enable-chunked-prefill no-enable-chunked-prefill
    enable-metrics disable-radix-cache disable-cuda-graph skip-server-warmup
"""
"""Flags without a value that leave the exit as it is."""
_VALUES = """
    host port api-key dtype seed revision download-dir load-balance-method log-level uvicorn-log-level
    tensor-parallel-size tp-size tp pipeline-parallel-size pp-size pp data-parallel-size dp-size dp nnodes
    node-rank distributed-executor-backend base-gpu-id gpu-memory-utilization mem-fraction-static
    max-model-len context-length max-num-seqs max-num-batched-tokens max-running-requests max-total-tokens
    chunked-prefill-size block-size swap-space cpu-offload-gb limit-mm-per-prompt served-model-name
    allowed-local-media-path root-path ssl-keyfile ssl-certfile watchdog-timeout
"""
"""Flags with a value that leave the exit as it is. Any other flag makes the exit unknown."""
_HARMLESS = dict.fromkeys(_VALUES.split(), True) | dict.fromkeys(_SWITCHES.split(), False)
"""Flag -> whether it has a value."""
_LIST = "served-model-name"
"""The one flag of these that may have several values."""
_WHY = {
    "enable-mm-embeds": "lets a request carry features of any exit",
    "enable-lora": "adds adapters, which no run of this model covers",
    "lora-modules": "adds adapters, which no run of this model covers",
    "trust-remote-code": "runs code of the model's folder, which may do anything",
    "quantization": "quantises the model, which was scanned as it is",
}
_MOST_DEEP = 20
"""Words in a dotted flag."""


@dataclass
class Arguments:
    """The arguments of a server's command, as far as they choose its model.

    Attributes:
        words: words that belong to no flag.
        values: flag without its dashes -> value, the last one where it is given twice.
        overrides: what changes the model's config: JSON, or the fields of dotted flags.
    """

    words: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    overrides: str | dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """The model.

        Raises:
            Undecided: none is named, or several are.
        """
        named = {*self.words, *(self.values[key] for key in ("model", "model-path") if key in self.values)}
        if len(named) != 1:
            raise Undecided("its command names no model" if not named else "its command has words of no flag")
        return named.pop()


def read(runtime: str, given: Sequence[str], folder: Path) -> Arguments:
    """Read the arguments of a server, and the YAML file that its `--config` names.

    Args:
        runtime: `vllm` or `sglang`.
        given: the words after the start of the server.
        folder: the folder of the file with the command, where a relative `--config` is looked for.

    Raises:
        Undecided: a flag is not known, or a word is a variable of a shell.
    """
    made, dotted, words = Arguments(), dict[str, Any](), _with_config(list(given), folder)
    at = 0
    while at < len(words):
        word, at = words[at], at + 1
        if "$" in word or "`" in word:
            raise Undecided(f"its command has a variable, {printable(word, 60)}; write out its value")
        if not word.startswith("-") or word == "-":
            made.words.append(word)
            continue
        flag, joined, value = word.partition("=")
        name = _name(flag)
        top = name.partition(".")[0]
        if _HARMLESS.get(top) is False and not joined:
            continue
        if top not in {OVERRIDES[runtime], *_MODEL[runtime]} and not _HARMLESS.get(top):
            why = _WHY.get(top, "does something that is not known to leave the exit as it is")
            raise Undecided(f"its {printable(flag, 60)} {why}")
        if not joined:
            if at == len(words) or words[at].startswith("--") or "$" in words[at] or "`" in words[at]:
                raise Undecided(f"its {printable(flag, 60)} has no value, or a variable; write the value out")
            value, at = words[at], at + 1
        while top == _LIST and not joined and at < len(words) and not words[at].startswith("-"):
            at += 1
        if name.startswith(f"{OVERRIDES[runtime]}."):
            _put(dotted, name.split(".")[1:], value)
        elif name == OVERRIDES[runtime]:
            made.overrides = value
        else:
            made.values[name] = value
    made.overrides = dotted or made.overrides  # vLLM puts the fields of dotted flags behind all others
    return made


def of_yaml(content: Mapping[str, Any]) -> list[str]:
    """Return the command line that a YAML file for `--config` stands for, as the servers build it."""
    made: list[str] = []
    for key, value in content.items():
        if value is False:
            continue
        made.append(f"--{key}")
        if isinstance(value, list):
            made += [str(one) for one in value]
        elif value is not True:
            made.append(json.dumps(value, default=str) if isinstance(value, Mapping) else str(value))
    return made


def _with_config(words: list[str], folder: Path) -> list[str]:
    """Put the flags of the file that `--config` names before the others, which outrank them."""
    if "--config" not in words:
        return words
    at = words.index("--config")
    name = words[at + 1] if at + 1 < len(words) else ""
    files = [file for file in (folder / name, Path(name)) if name and file.is_file()]
    if not files:
        raise Undecided(f"its --config {printable(name, 80)} is no file here; put it beside the command")
    documents = strict_yaml.documents(files[0], f"config {files[0]}")
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise LayeralignError(f"config {files[0]}: expected `flag: value` lines, as for --config of a server")
    return [*of_yaml(documents[0]), *words[:at], *words[at + 2 :]]


def _name(flag: str) -> str:
    """Return a flag as vLLM reads it, without its dashes: `_` is `-` before the first dot."""
    top, dot, rest = flag.lstrip("-").partition(".")
    return top.replace("_", "-") + dot + rest


def _put(fields: dict[str, Any], path: Sequence[str], value: str) -> None:
    """Put the value of a dotted flag into the overrides: JSON, else a text."""
    if len(path) > _MOST_DEEP or path[-1].endswith("+"):
        raise Undecided(f"what its --hf-overrides.{printable('.'.join(path), 60)} does is not known")
    for key in path[:-1]:
        below = fields.setdefault(key, {})
        if not isinstance(below, dict):
            raise Undecided(f"its --hf-overrides give {printable(key, 60)} twice")
        fields = below
    try:
        fields[path[-1]] = json.loads(value)
    except (ValueError, RecursionError):
        fields[path[-1]] = value
