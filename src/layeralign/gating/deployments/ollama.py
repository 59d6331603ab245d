"""Vision files of Ollama: a Modelfile, a manifest, or the folder of its models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from layeralign._util.files import expanded
from layeralign._util.text import json_of, printable
from layeralign._util.validation import shown
from layeralign.errors import LayeralignError
from layeralign.gating.deployments import gguf_file
from layeralign.gating.deployments.runtimes import Runtime
from layeralign.gating.deployments.server import Server

_OLLAMA = Runtime("ollama")
_MEDIA = "application/vnd.ollama.image."
_DIGEST = re.compile("sha256[:-]([0-9a-fA-F]{64})")
_MOST_BYTES, _MOST_FILES = 1_000_000, 1_000


def _lines(text: str) -> list[str]:
    """Return the lines of a Modelfile without the texts in triple quotes, in which FROM is only a word."""
    return re.sub(r'""".*?("""|\Z)', "", text, flags=re.DOTALL).split("\n")


def is_modelfile(file: Path, text: str) -> bool:
    """Return whether a text is a Modelfile: by its name, or because its first command is FROM."""
    first = next((line for line in _lines(text) if line.strip() and line.strip()[0] != "#"), "")
    return file.name.lower().endswith("modelfile") or first.strip().upper().startswith("FROM ")


def of_modelfile(file: Path, text: str) -> list[Server]:
    """Return the server of a Modelfile, whose FROM lines name files or folders here.

    Raises:
        LayeralignError: it has no FROM line.
    """
    words = (line.split(maxsplit=1) for line in _lines(text))
    said = [(pair[0].upper(), pair[1].strip().strip("\"'")) for pair in words if len(pair) == 2]
    lines = [(what, name) for what, name in said if what in ("FROM", "ADAPTER")]
    if not any(what == "FROM" for what, _ in lines):
        raise LayeralignError(f"config {file}: has no FROM line; expected FROM with the model's GGUF file")
    if any(what == "ADAPTER" for what, _ in lines):
        return [_unknown(file, "its ADAPTER changes the model")]
    found: list[Path] = []
    for _, name in lines:
        path = file.parent / expanded(name)
        if not path.exists():
            return [
                _unknown(file, f"its FROM {printable(name, 80)} is no file here; name the model's manifest")
            ]
        found += sorted(islice(path.glob("*.gguf"), _MOST_FILES)) if path.is_dir() else [path]
    return [_server(str(file), [path for path in found if path.is_file() and gguf_file.is_vision(path)])]


def is_manifest(content: Any) -> bool:
    """Return whether JSON is a manifest of Ollama's registry, or a list of them."""
    return isinstance(content, Mapping) and ("layers" in content or "manifests" in content)


def of_manifest(file: Path, content: Mapping[str, Any]) -> list[Server]:
    """Return the server of a manifest, whose blobs are beside its folder `manifests`.

    Raises:
        LayeralignError: a digest is none, or the folder of the blobs is not there.
    """
    layers = content.get("layers")
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        return [_unknown(file, "its manifest has no list of layers")]
    digests: dict[str, list[str]] = {}
    for number, layer in enumerate(layers, 1):
        digest = _DIGEST.fullmatch(str(layer.get("digest")))
        if digest is None:
            raise LayeralignError(
                f"config {file}: layer {number}: digest is {shown(layer.get('digest'))}; expected sha256: "
                "and 64 hexadecimal digits; pull the model again"
            )
        kind = str(layer.get("mediaType")).removeprefix(_MEDIA)
        digests.setdefault(kind, []).append(f"sha256-{digest[1].lower()}")
    if "adapter" in digests:
        return [_unknown(file, "its adapter changes the model")]
    root = next((folder for folder in file.absolute().parents if (folder / "blobs").is_dir()), None)
    if root is None:
        raise LayeralignError(
            f"config {file}: no folder above it has blobs; give the manifest in Ollama's folder"
        )
    blobs = [root / "blobs" / name for name in digests.get("projector", [])]
    if missing := [blob.name for blob in blobs if not blob.is_file()]:
        raise LayeralignError(f"config {file}: its blob {missing[0]} is not there; pull the model again")
    return [_server(str(file), blobs)]


def of_folder(folder: Path) -> list[Server]:
    """Return a server for each manifest in the folder of Ollama's models.

    Raises:
        LayeralignError: there is no manifest, there are too many, or one cannot be read.
    """
    files = sorted(
        islice((one for one in (folder / "manifests").rglob("[!.]*") if one.is_file()), _MOST_FILES + 1)
    )
    if not 0 < len(files) <= _MOST_FILES:
        raise LayeralignError(
            f"config {folder}: has {len(files) or 'no'} manifests; give the one that you deploy"
        )
    return [server for file in files for server in of_manifest(file, _manifest(file))]


def _manifest(file: Path) -> Mapping[str, Any]:
    with file.open("rb") as stream:
        content = stream.read(_MOST_BYTES)
    made = json_of(content.decode(errors="replace"), f"config {file}")
    if not is_manifest(made):
        raise LayeralignError(f"config {file}: is no manifest; expected a JSON object with layers")
    return made  # type: ignore[no-any-return]


def _server(name: str, files: list[Path]) -> Server:
    """Return the server of the one vision file."""
    if len(files) == 1:
        return Server(name, files[0], _OLLAMA)
    what = f"it has {len(files)} vision files" if files else "it has no vision file of its own"
    return Server(name, "", _OLLAMA, unknown=f"{what}, and the exit of such a model is not known")


def _unknown(file: Path, why: str) -> Server:
    return Server(str(file), "", _OLLAMA, unknown=why)
