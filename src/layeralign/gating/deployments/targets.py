"""What a target is: a checkpoint, a config, a vision file, or a file that says how servers are started."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from layeralign._util import strict_yaml
from layeralign._util.files import expanded
from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.gating.deployments import command, manifests, ollama
from layeralign.gating.deployments.runtimes import GGUF, Runtime
from layeralign.gating.deployments.server import Server

_YAML, _MOST = (".yaml", ".yml"), 1000


def servers(given: str | Path, runtime: Runtime | None = None) -> list[Server]:
    """Return the servers of a target; a checkpoint or a config is one server.

    Args:
        given: the target.
        runtime: the runtime, with its version, for what a file does not say.

    Raises:
        LayeralignError: the file cannot be read or has no server, or its runtime is another.
    """
    try:
        found = _of(given, expanded(given))
    except OSError as error:  # of a file or folder that the target names
        what = f"{error.strerror}: {printable(str(error.filename), 100)}"
        raise LayeralignError(f"config {given}: cannot be read ({what})") from error
    if len(found) > _MOST:
        raise LayeralignError(f"config {given}: has {len(found)} servers; expected at most {_MOST}, split it")
    return [replace(one, runtime=_agreed(one.runtime, runtime, one.name)) for one in found]


def is_vision(model: str | Path) -> bool:
    """Return whether a model is a GGUF file, by its name or its first bytes."""
    path = expanded(model)
    return path.suffix == ".gguf" or (path.is_file() and _start(path, 4) == b"GGUF")


def _of(given: str | Path, path: Path) -> list[Server]:
    plain = [Server(str(given), given)]
    if path.is_dir():
        return _of_folder(path) or plain
    if not path.is_file() or is_vision(path):
        return plain
    if path.suffix == ".json" or (
        path.suffix not in _YAML and _start(path, 100).lstrip()[:1] in (b"{", b"[")
    ):
        return _of_json(path) or plain
    return _of_text(path)


def _of_text(path: Path) -> list[Server]:
    """Return the servers of a file that is no JSON."""
    if path.suffix in _YAML:
        return manifests.of_file(path)
    text = _text(path)
    return (
        ollama.of_modelfile(path, text) if ollama.is_modelfile(path, text) else command.of_script(text, path)
    )


def _of_folder(path: Path) -> list[Server]:
    """Return the servers of a folder that is no checkpoint of transformers; empty otherwise."""
    if (path / "config.json").is_file():
        return [Server(str(path), path, Runtime("mlx-vlm"))] if _is_mlx(path) else []
    if (path / "manifests").is_dir():
        return ollama.of_folder(path)
    file = path / "Modelfile"
    return ollama.of_modelfile(file, _text(file)) if file.is_file() else []


def _of_json(path: Path) -> list[Server]:
    """Return the servers of a JSON file that is not a model's config; empty if it is one, or no JSON."""
    content: Any = None
    if path.stat().st_size <= strict_yaml.MOST_BYTES:
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return []
    if ollama.is_manifest(content):
        return ollama.of_manifest(path, content)
    kubernetes = isinstance(content, dict) and {"apiVersion", "kind"} <= content.keys()
    return manifests.of_documents([content], path) if kubernetes else []


def _is_mlx(folder: Path) -> bool:
    """Return whether mlx wrote the weights of a folder."""
    from safetensors import SafetensorError, safe_open

    file = next(iter(sorted(folder.glob("*.safetensors"))), None)
    if file is None or not file.is_file():
        return False
    try:
        with safe_open(file, framework="np") as tensors:
            return (tensors.metadata() or {}).get("format") == "mlx"
    except (SafetensorError, OSError):
        return False  # its weights differ from the scanned ones, which the check says


def _agreed(found: Runtime | None, given: Runtime | None, name: str) -> Runtime | None:
    """Return the runtime of a server, with the version that is given for it."""
    if given is None or found is None:
        return given or found
    if given.name != found.name and not {given.name, found.name} <= set(GGUF):
        raise LayeralignError(f"runtime {given}: {name} is for {found.name}; expected {found.name}@VERSION")
    return given


def _start(path: Path, size: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(size)


def _text(path: Path) -> str:
    content = _start(path, strict_yaml.MOST_BYTES + 1)
    if len(content) > strict_yaml.MOST_BYTES:
        raise LayeralignError(
            f"config {path}: is larger than {strict_yaml.MOST_BYTES} bytes; give the command alone"
        )
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise LayeralignError(
            f"config {path}: is no text; expected a config, a GGUF file, a manifest or a command"
        ) from error
