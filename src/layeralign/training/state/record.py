"""The record of a training's inputs, on disk: trainings with the same record are the same."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from layeralign._util import files
from layeralign._util.text import json_of, printable
from layeralign._util.validation import Record, validated
from layeralign.cases.case import Case
from layeralign.decode import checks
from layeralign.errors import LayeralignError
from layeralign.rewards.reward import Reward
from layeralign.training.settings import AlignSettings
from layeralign.vlm.checkpoint import TRAINED_ON, TRAINING
from layeralign.vlm.identity import identity, versions
from layeralign.vlm.vlm import Vlm

CHECKPOINT = "checkpoint.safetensors"
REFERENCE = "reference.json"
"""The reference policy's answers."""
ROLLOUTS = "rollouts"
"""Folder of the adapter that another engine reads."""
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
"""The adapter, which a training writes at its end."""
_LARGEST = 32 * 2**20
"""Most bytes of a record."""
_OURS = (TRAINING, TRAINED_ON, CHECKPOINT, REFERENCE, ROLLOUTS, "log.jsonl", "tensorboard")


class _Training(Record):
    """The part that every record of a training has; `compare` checks the rest."""

    model_config = ConfigDict(extra="allow")

    settings: dict[str, Any] = Field(description="an object")
    continued: list[Any] = Field([], description="a list")


def write(file: Path, made: Mapping[str, Any]) -> dict[str, Any]:
    """Write a record with the versions of the libraries; return it."""
    record = {**made, "versions": versions()}
    files.write_json(file, record)
    return record


def read_same(file: Path, made: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record in `file`, which must be of the same training; None without a file.

    Raises:
        LayeralignError: the record cannot be read, or belongs to another training.
    """
    if not file.is_file():
        return None
    record = _read(file)
    compare(file.parent, record, made)
    return record


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json_of(files.read_text(file, _LARGEST), file.name)
        validated(_Training, found, file.name)
    except (LayeralignError, OSError, ValueError) as error:
        raise LayeralignError(
            f"out {file.parent}: {file.name} is no record of a training ({error}); use a new folder"
        ) from error
    return found


def compare(out: Path, found: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Refuse to mix two trainings in `out`; only the model's name may differ.

    Raises:
        LayeralignError: the records `found` and `made` differ.
    """
    for key, now in made.items():
        was = found.get(key)
        if was == now or key == "model":
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            differ = [k for k in {*was, *now} if was.get(k) != now.get(k)]
            if not differ:  # one has null where the other has nothing
                continue
            inner = min(differ)
            key, was, now = f"{key}.{inner}", was.get(inner), now.get(inner)  # noqa: PLW2901
        old, new = (printable(json.dumps(value), 60) for value in (was, now))
        raise LayeralignError(
            f"out {out}: holds another training, with {key} = {old}, and this command has {new}; "
            "use another --out, or the same settings"
        )


def _longer(out: Path, was: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings `was`, with the steps of `now` if the training may continue with them.

    Raises:
        LayeralignError: the number of steps differs, and the schedule forbids it or there are fewer.
    """
    had = was.get("steps")
    if had == now["steps"] or not isinstance(had, int) or {**was, "steps": now["steps"]} != now:
        return dict(was)
    shown = f"out {out}: holds a training of {had} steps, and this command has {now['steps']}; "
    if now["schedule"] != "constant":
        raise LayeralignError(
            f"{shown}its learning rate fell to zero at its last step, so it cannot continue; use another "
            "--out, and --schedule constant for a training that can"
        )
    if now["steps"] < had:
        raise LayeralignError(f"{shown}use another --out, or at least as many steps")
    return dict(now)


def record(
    vlm: Vlm,
    cases: Sequence[Case],
    reward: Reward | None,
    settings: AlignSettings,
    processes: int,
    engine: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return everything that determines an adapter, as JSON, and the model's name, which does not.

    `engine` is the record of the engine that samples rollouts in place of this process.
    """
    asked = hashlib.sha256("".join(case.sha256 for case in cases).encode()).hexdigest()
    made = {
        "model": vlm.checkpoint.name,
        "identity": identity(vlm),
        "cases": {"n": len(cases), "sha256": asked},
        "reward": reward.record() if reward else None,
        "settings": settings.record(),
        "processes": processes,
        "engine": engine,
    }
    plain: dict[str, Any] = json.loads(json.dumps(made))
    return plain


def dated(out: Path, vlm: Vlm, settings: AlignSettings) -> AlignSettings:
    """Return the settings with the date for the chat template: that of the training in `out`, else today.

    Raises:
        LayeralignError: the record in `out` cannot be read.
    """
    file = out / TRAINING
    was = str(_read(file)["settings"].get("date", "")) if file.is_file() else ""
    today = datetime.now(UTC).date().isoformat()
    return replace(settings, date=checks.dated(vlm, settings.decoding(), was, today).date)


@contextmanager
def begun(out: Path, made: dict[str, Any], cases: Sequence[Case]) -> Iterator[None]:
    """Hold the training's folder as its only writer, once it is created or checked; see `_begin`.

    Raises:
        LayeralignError: see `_begin`, or another process trains in `out`.
    """
    resumed = (out / CHECKPOINT).exists() and (out / TRAINING).is_file()
    if (
        not resumed
        and out.exists()
        and not (out.is_dir() and all(f.name.lstrip(".").startswith(_OURS) for f in out.iterdir()))
    ):
        raise LayeralignError(f"out {out}: is not empty and holds no training; use a new folder")
    with files.holding(out, f".{TRAINING}.lock", f"out {out}"):
        _begin(out, made, cases)
        yield


def _begin(out: Path, made: dict[str, Any], cases: Sequence[Case]) -> None:
    """Write the records of a training, or check that they are the same; one without a step starts again.

    With a constant schedule, a training in the folder may have had fewer steps.

    The hash of each case is written to a separate file, so that a scan can determine which of its cases were
    trained on.

    Raises:
        LayeralignError: `out` has another training.
    """
    file = out / TRAINING
    session = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "command": shlex.join(sys.argv)}
    if (out / CHECKPOINT).exists() and file.is_file():
        found = _read(file)
        compare(out, found | {"settings": _longer(out, found["settings"], made["settings"])}, made)
        files.write_json(out / TRAINED_ON, {"asked": sorted({case.asked for case in cases})})
        if found["settings"] != made["settings"]:
            for name in _ADAPTER:  # of fewer steps; a scan would take it for the one of this record
                (out / name).unlink(missing_ok=True)
            write(file, found | made | {"continued": [*found.get("continued", []), session]})
        return
    (out / REFERENCE).unlink(missing_ok=True)  # from a training without a step, possibly of other cases
    files.write_json(out / TRAINED_ON, {"asked": sorted({case.asked for case in cases})})
    write(file, made | session)
