"""Servers in Kubernetes manifests, compose files, and the YAML files that vLLM and SGLang read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from layeralign._util import strict_yaml
from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.gating.deployments import command
from layeralign.gating.deployments.runtimes import of_image
from layeralign.gating.deployments.server import Server

_PARTS = ("entrypoint", "command", "args")
"""Keys of a container whose words, in this order, are what it runs."""
_ELSEWHERE = "extends"
"""Key of a service of compose that has parts in another service or file."""
_NAMES = re.compile("vllm|sglang", re.IGNORECASE)


def of_file(file: Path) -> list[Server]:
    """Return the servers of a YAML file.

    Raises:
        LayeralignError: the file is not YAML, or has no server.
    """
    return of_documents(strict_yaml.documents(file, f"config {file}"), file)


def of_documents(documents: Sequence[Any], file: Path) -> list[Server]:
    """Return the servers of a file's documents, each a Kubernetes object or a compose file.

    Raises:
        LayeralignError: there is no server, or its overrides are not JSON.
    """
    found = []
    for document in documents:
        containers = [server for at, one in _containers(document, "") for server in _servers(one, at, file)]
        if not containers and isinstance(document, dict):
            config = command.of_config(document, str(file), file.parent)
            containers = [config] if config else []
        found += containers
    if not found:
        raise LayeralignError(
            f"config {file}: has no server of vLLM or SGLang; expected a container with its command, or the "
            "key model"
        )
    return found


def _containers(content: Any, at: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield everything that has an image or a command, with its name."""
    if isinstance(content, dict):
        if isinstance(content.get("image"), str) or any(key in content for key in (*_PARTS, _ELSEWHERE)):
            yield str(content.get("container_name") or content.get("name") or at), content
        for key, part in content.items():
            if not str(key).startswith("x-"):  # a fragment of a compose file, which runs nothing
                yield from _containers(part, str(key))
    elif isinstance(content, list):
        for part in content:
            yield from _containers(part, at)


def _servers(container: Mapping[str, Any], at: str, file: Path) -> list[Server]:
    """Return the servers that a container runs; one whose start is hidden is unknown."""
    name = f"{file}, container {printable(at, 60)}"
    if _ELSEWHERE in container:
        return [Server(name, "", unknown="it extends another service, which may change its command")]
    given = container.get("image")
    image, words = given if isinstance(given, str) else "", list[str]()
    for key in _PARTS:
        more = _words(container.get(key), f"config {name}, {key}")
        if more is None:
            return [Server(name, "", unknown=f"its {key} has a value that is no text; put it in quotes")]
        words += more
    runs = [words, *(inside for _, inside in command.within(words, f"config {name}", 0))]
    found = [server for each in runs if (server := command.of_words(each, name, file.parent))]
    of_its_own = not container.get("command") or words[0].startswith("-")  # what the image starts
    if not found and of_its_own and not container.get("entrypoint"):
        own = command.of_image_words(image, words, name, file.parent)
        found = [own] if own else []
    if not found and _NAMES.search(" ".join([image, *words])):
        return [Server(name, "", unknown=command.HIDDEN)]
    return [
        replace(one, runtime=of_image(one.runtime, image)) if one.runtime and not one.runtime.version else one
        for one in found
    ]


def _words(value: Any, where: str) -> list[str] | None:
    """Return a command as words; None if it has a value that is neither a text nor a whole number."""
    if value is None:
        return []
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise LayeralignError(f"{where}: a quote is open; close it") from error
    if isinstance(value, list) and all(type(one) in (str, int) for one in value):
        return [str(one) for one in value]
    return None
