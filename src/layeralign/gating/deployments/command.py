"""Command lines of vLLM and SGLang, in a shell script or as a list of words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from layeralign._util.text import json_of
from layeralign.errors import LayeralignError
from layeralign.gating.deployments import flags
from layeralign.gating.deployments.place import Undecided
from layeralign.gating.deployments.runtimes import Runtime, of_image
from layeralign.gating.deployments.server import Server

_TOKEN = re.compile(
    r"""(?P<gap>(?:[ \t]|\\\n)+)
    |(?P<comment>\#[^\n]*)
    |(?P<redirect>[\d&]?[<>]+[&|]?)
    |(?P<end>[\n;&|()]+)
    |(?P<word>(?:\\.|'[^']*'|"(?:[^"\\]|\\.)*"|\$\([^()]*\)|[^\s'"\\;&|()<>])+)""",
    re.VERBOSE | re.DOTALL,
)
_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_BRACES = re.compile(r"\{[^{}]*(,|\.\.)")
"""Braces that bash expands to several words, which are as unknown as those of a variable."""
_MODULES = {
    ("-m", "vllm.entrypoints.openai.api_server"): "vllm",
    ("-m", "vllm.entrypoints.api_server"): "vllm",
    ("-m", "sglang.launch_server"): "sglang",
    ("vllm", "serve"): "vllm",
    ("sglang", "serve"): "sglang",
}
"""Two words with which a server starts."""
_SHELLS = ("sh", "bash", "dash", "ash", "zsh")
_IMAGE = re.compile(r"(^|/)vllm-openai([:@]|$)")
"""The image whose start is vLLM's server."""
_HIDDEN = re.compile(
    r"(vllm|sglang)[\s\"'`)}]+serve\b|(vllm|sglang)\w{0,20}[./]\S{0,60}(launch_server|api_server)",
    re.IGNORECASE,
)
"""The start of a server in a command that is not known to start one, as in `eval "vllm serve M"`."""
_DEEPEST = 3
"""Scripts in scripts (`sh -c`)."""
HIDDEN = "its command does not show how its server starts"


def commands(script: str, where: str, depth: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Yield the commands of a shell script as words, each with its line; `sh -c` is read, too.

    Raises:
        LayeralignError: a quote is not closed, or a character is none of a text.
    """
    at, line, now, words, skip = 0, 1, 1, list[str](), False
    while at < len(script):
        token = _TOKEN.match(script, at)
        if token is None or re.search(r"[\x00-\x08\x0b-\x1f\x7f]", token[0]):
            raise LayeralignError(
                f"{where}, line {now}: is no shell command; close the quote, or remove the control character"
            )
        if token.lastgroup == "word":
            line = line if words else now
            found = [] if skip else shlex.split(token[0].replace("\\\n", ""))
            words += [f"${one}" for one in found] if _BRACES.search(_QUOTED.sub("", token[0])) else found
            skip = False
        skip = skip or token.lastgroup == "redirect"
        if words and token[0].startswith("("):  # of `>(tee log)`: what follows belongs to the command, too
            words.append("$()")
        at, now = token.end(), now + token[0].count("\n")
        if words and (token.lastgroup == "end" or at == len(script)):
            yield line, words
            yield from within(words, f"{where}, line {line}", depth)
            words = []


def within(words: Sequence[str], where: str, depth: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the commands of a script in a command: `bash -lc SCRIPT`.

    Raises:
        LayeralignError: see `commands`; or scripts are too deep in scripts.
    """
    shell = next((at for at, word in enumerate(words) if Path(word).name in _SHELLS), len(words))
    rest = words[shell + 1 :]
    start = next((at for at, flag in enumerate(rest) if re.fullmatch("-[a-z]*c", flag)), len(rest))
    script = next((word for word in rest[start + 1 :] if not word.startswith("-")), "")
    if script and depth >= _DEEPEST:
        raise LayeralignError(f"{where}: has scripts in scripts, more than {_DEEPEST} deep; write them out")
    yield from commands(script, where, depth + 1)


def of_script(script: str, file: Path) -> list[Server]:
    """Return the servers that a shell script starts.

    Raises:
        LayeralignError: the script cannot be read, or starts no server.
    """
    where = f"config {file}"
    found = [
        server
        for line, words in commands(script, where)
        if (server := of_words(words, f"{file}, line {line}", file.parent))
    ]
    if not found:
        raise LayeralignError(
            f"{where}: has no command of vLLM or SGLang; expected vllm serve MODEL, or "
            "python -m sglang.launch_server --model-path MODEL"
        )
    return found


def of_words(words: Sequence[str], name: str, folder: Path) -> Server | None:
    """Return the server that a command starts; None if it starts none, unknown if it may start one.

    Args:
        words: the command.
        name: the server's name, for messages.
        folder: the folder of the file with the command.

    Raises:
        LayeralignError: its overrides are not JSON, or its YAML file cannot be read.
    """
    for at, word in enumerate(words):
        runtime = _MODULES.get((Path(word).name, next(iter(words[at + 1 : at + 2]), "")))
        if runtime:
            return _server(Runtime(runtime), words[at + 2 :], name, folder)
        if _IMAGE.search(word):  # docker run
            return _server(of_image(Runtime("vllm"), word), words[at + 1 :], name, folder)
    if _HIDDEN.search(" ".join(words)) and not list(within(words, f"config {name}", 0)):
        return Server(name, "", unknown=HIDDEN)
    return None


def of_image_words(image: str, words: Sequence[str], name: str, folder: Path) -> Server | None:
    """Return the server of a container without a command of its own; None if the image has none."""
    if _IMAGE.search(image):
        return _server(of_image(Runtime("vllm"), image), words, name, folder)
    return None


def of_config(content: Mapping[str, Any], name: str, folder: Path) -> Server | None:
    """Return the server of a YAML file for `--config`; None if it names no model."""
    keys = {str(key).replace("_", "-") for key in content}
    if not keys & {"model", "model-path"}:
        return None
    sglang = keys & {"model-path", "json-model-override-args"}
    return _server(Runtime("sglang" if sglang else "vllm"), flags.of_yaml(content), name, folder)


def _server(runtime: Runtime, words: Sequence[str], name: str, folder: Path) -> Server:
    """Return a server by the words after its start; why its exit is unknown is its `unknown`."""
    server = Server(name, "", runtime, named=True)
    try:
        found = flags.read(runtime.name, words, folder)
        model = found.model
    except Undecided as reason:
        return replace(server, unknown=str(reason))
    changes, flag = found.overrides, f"config {name}: --{flags.OVERRIDES[runtime.name]}"
    if isinstance(changes, str):
        changes = json_of(changes, flag)
    if not isinstance(changes, dict):
        raise LayeralignError(f"{flag} is a {type(changes).__name__}; expected a JSON object")
    return replace(server, model=model, overrides=changes, revision=found.values.get("revision"))
