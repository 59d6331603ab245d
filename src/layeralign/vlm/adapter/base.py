"""Check that an adapter is loaded onto the model that it was trained on."""

from __future__ import annotations

import re
import sys
from typing import Any

from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.vlm.checkpoint import TRAINING, Adapter, Checkpoint, read_json

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HOW = "load it with that model, or pass --allow base (allow_base=True in Python), which the run records"


def check(adapter: Adapter, model: Checkpoint, *, allow: bool) -> str:
    """Compare the base model of an adapter with the model to load it onto.

    An adapter that layeralign trained has a record with the file hashes of its base: weights and
    `config.json` must match. For any other adapter, the last part of the base's name in PEFT's config must
    match, since people keep local copies. The commit must match, too, if both commits are known. If the
    adapter names no base, it cannot be checked, and a note on stderr says so.

    Args:
        adapter: An adapter from `find_adapter`.
        model: The model to load it onto.
        allow: Whether a different base model is allowed.

    Returns:
        The different base model, for messages; empty if the base is `model` or was not checked.

    Raises:
        LayeralignError: The base is a different model, and `allow` is False.
    """
    recorded = _recorded(adapter)
    other = _by_name(adapter, model) if recorded is None else _by_files(recorded, model)
    if not other:
        return ""
    what = f"adapter {adapter.name}: was trained on {other}, not on {_label(model.name, model.revision)}"
    if not allow:
        raise LayeralignError(f"{what}; {_HOW}")
    _note(f"{what}; allowed, and recorded in the run")
    return other


def _recorded(adapter: Adapter) -> dict[str, Any] | None:
    """The record of layeralign's training; None if there is no record with the base's hashes."""
    file = adapter.path / TRAINING
    found = read_json(file) if file.is_file() else {}
    identity = found.get("identity")
    hashed = isinstance(identity, dict) and isinstance(identity.get("files"), dict)
    return found if hashed else None


def _by_files(recorded: dict[str, Any], model: Checkpoint) -> str:
    """The recorded base if the model's weights or config differ from it; tokenizer files do not count."""
    was = recorded["identity"]["files"]
    differ = [
        name
        for name, sha256 in model.hashes.items()
        if (name == "config.json" or name.endswith(".safetensors")) and was.get(name) != sha256
    ]
    if not differ:
        return ""
    files = printable(differ[0], 80) + (f" and {len(differ) - 1} more" if len(differ) > 1 else "")
    name = _label(str(recorded.get("model")), recorded["identity"].get("revision"))
    return f"{name} (other files: {files})"


def _by_name(adapter: Adapter, model: Checkpoint) -> str:
    """The base in PEFT's config if its name or commit is not the model's."""
    config = read_json(adapter.path / "adapter_config.json")
    base, wanted = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base.strip():
        _note(f"adapter {adapter.name}: has no base_model_name_or_path, so its base model was not checked")
        return ""
    name, cached = _last_part(base)
    if name not in {_last_part(model.name)[0], _last_part(str(model.path))[0]}:
        return _label(base, wanted)
    wanted, has = cached or wanted, model.revision or _last_part(model.name)[1]
    if not isinstance(wanted, str) or wanted in ("", "main"):
        return ""
    if has and _COMMIT.fullmatch(wanted):
        return "" if wanted == has else _label(base, wanted)
    _note(
        f"adapter {adapter.name}: was trained on revision {printable(wanted, 60)} of its base model, which "
        "cannot be compared with the model's commit and was not checked"
    )
    return ""


def _last_part(name: str) -> tuple[str, str]:
    """The last part of a model's name or path, and the commit if the path is in the hub's cache."""
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    if len(parts) > 2 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return parts[-3].rpartition("--")[2].casefold(), parts[-1]
    return (parts[-1].casefold() if parts else ""), ""


def _label(name: str, revision: object) -> str:
    """A model and its revision, for messages."""
    at = f" at {printable(revision, 12)}" if isinstance(revision, str) and revision else ""
    return f"{printable(name, 200)}{at}"


def _note(what: str) -> None:
    print(f"note: {printable(what)}", file=sys.stderr)
