"""The model that an adapter was made for, compared with the model that it is put on."""

from __future__ import annotations

import re
import sys
from typing import Any

from layeralign.errors import LayeralignError
from layeralign.text import printable
from layeralign.vlm.checkpoint import TRAINING, Adapter, Checkpoint, read_json

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HOW = "use that model, or put it on this one with --allow base (allow_base=True in Python): the run says so"


def check(adapter: Adapter, model: Checkpoint, *, allow: bool) -> str:
    """Compare an adapter's base with the model that it is about to be put on.

    An adapter that layeralign trained has a record with the hashes of its base: weights and `config.json`
    have to be the same files. Any other adapter has the name of its base in PEFT's config: the last part of
    the name has to be the same, since people have local copies, and the commit where both are known.
    What an adapter does not say is not checked, and a note on stderr says so.

    Args:
        adapter: from `find_adapter`.
        model: what it is put on.
        allow: whether another base is allowed.

    Returns:
        In words, which other base the adapter was made for; empty where it is this one, or not known.

    Raises:
        LayeralignError: it was made for another base, and that is not allowed.
    """
    recorded = _recorded(adapter)
    other = _by_name(adapter, model) if recorded is None else _by_files(recorded, model)
    if not other:
        return ""
    made_for = f"was made for {other}, not for {_told(model.name, model.revision)} as it is here"
    if not allow:
        raise LayeralignError(f"adapter {adapter.name}: {made_for}; {_HOW}")
    _note(f"adapter {adapter.name}: {made_for}; that is allowed, and runs say so")
    return other


def _recorded(adapter: Adapter) -> dict[str, Any] | None:
    """The record of layeralign's own training; None where there is none that has its base's hashes."""
    file = adapter.path / TRAINING
    found = read_json(file) if file.is_file() else {}
    identity = found.get("identity")
    hashed = isinstance(identity, dict) and isinstance(identity.get("files"), dict)
    return found if hashed else None


def _by_files(recorded: dict[str, Any], model: Checkpoint) -> str:
    """The recorded base, where the model's weights or config are other files; others are not looked at."""
    was = recorded["identity"]["files"]
    differ = [
        name
        for name, sha256 in model.hashes.items()
        if (name == "config.json" or name.endswith(".safetensors")) and was.get(name) != sha256
    ]
    if not differ:
        return ""
    more = f" and {len(differ) - 1} more" if len(differ) > 1 else ""
    name = _told(str(recorded.get("model")), recorded["identity"].get("revision"))
    return f"{name} with another {printable(differ[0], 80)}{more}"


def _by_name(adapter: Adapter, model: Checkpoint) -> str:
    """The base that PEFT's config names, where that is no name of the model."""
    config = read_json(adapter.path / "adapter_config.json")
    base, wanted = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base.strip():
        _unchecked(adapter, "does not say for which model it was made (base_model_name_or_path)")
        return ""
    name, cached = _last(base)
    if name not in {_last(model.name)[0], _last(str(model.path))[0]}:
        return _told(base, wanted)
    wanted, has = cached or wanted, model.revision or _last(model.name)[1]
    if not isinstance(wanted, str) or wanted in ("", "main"):
        return ""
    if has and _COMMIT.fullmatch(wanted):
        return "" if wanted == has else _told(base, wanted)
    _unchecked(
        adapter, f"was made for revision {printable(wanted, 60)} of its model; which one this is is not known"
    )
    return ""


def _last(name: str) -> tuple[str, str]:
    """The last part of a model's name or path, and its commit where the path is in the hub's cache."""
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    if len(parts) > 2 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return parts[-3].rpartition("--")[2].casefold(), parts[-1]
    return (parts[-1].casefold() if parts else ""), ""


def _told(name: str, revision: object) -> str:
    """A model for a message."""
    at = f" at {printable(revision, 12)}" if isinstance(revision, str) and revision else ""
    return f"{printable(name, 200)}{at}"


def _unchecked(adapter: Adapter, what: str) -> None:
    _note(f"adapter {adapter.name}: {what}; whether it is for this model was not checked")


def _note(what: str) -> None:
    print(f"note: {printable(what)}", file=sys.stderr)
