"""The folder of an adapter: made for a training, or checked to hold the same training."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from layeralign import decode
from layeralign._util import files
from layeralign.cases.case import Case
from layeralign.errors import LayeralignError
from layeralign.rewards.reward import Reward
from layeralign.training.settings import Settings
from layeralign.training.state import checkpoint, log
from layeralign.training.state.record import read_same, write
from layeralign.vlm.checkpoint import TRAINED_ON, TRAINING, read_json
from layeralign.vlm.identity import identity
from layeralign.vlm.vlm import Vlm

REFERENCE = "reference.json"
"""The reference policy's answers."""
_OURS = (TRAINING, TRAINED_ON, checkpoint.FILE, log.FILE, REFERENCE, "tensorboard")


def record(
    vlm: Vlm, cases: Sequence[Case], reward: Reward | None, settings: Settings, processes: int
) -> dict[str, Any]:
    """What shapes an adapter, as JSON, and the model's name, which does not."""
    asked = hashlib.sha256("".join(case.sha256 for case in cases).encode()).hexdigest()
    made = {
        "model": vlm.checkpoint.name,
        "identity": identity(vlm),
        "cases": {"n": len(cases), "sha256": asked},
        "reward": reward.record() if reward else None,
        "settings": settings.record(),
        "processes": processes,
    }
    plain: dict[str, Any] = json.loads(json.dumps(made))
    return plain


def dated(out: Path, vlm: Vlm, settings: Settings) -> Settings:
    """The settings with the day for the chat template: that of the training in `out`, else today.

    Raises:
        LayeralignError: the record in `out` cannot be read.
    """
    file = out / TRAINING
    known = read_json(file).get("settings") if file.is_file() else None
    was = str(known.get("date", "")) if isinstance(known, dict) else ""
    today = datetime.now(UTC).date().isoformat()
    return replace(settings, date=decode.dated(vlm, settings.decoding(), was, today).date)


def begin(out: Path, made: dict[str, Any], cases: Sequence[Case]) -> None:
    """Make the folder, or check that it holds the same training; one without a step is started again.

    The hash of each case is written to a file of its own, so that a scan can tell which of its cases were
    trained on.

    Raises:
        LayeralignError: `out` holds another training, or other files.
    """
    file = out / TRAINING
    if (out / checkpoint.FILE).exists() and read_same(file, made):
        return
    if out.exists() and not (
        out.is_dir() and all(f.name.lstrip(".").startswith(_OURS) for f in out.iterdir())
    ):
        raise LayeralignError(f"out {out}: is not empty and holds no training; use a new folder")
    out.mkdir(parents=True, exist_ok=True)
    (out / REFERENCE).unlink(missing_ok=True)  # of a training without a step, perhaps of other cases
    files.write_json(out / TRAINED_ON, {"asked": sorted({case.asked for case in cases})})
    session = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "command": shlex.join(sys.argv)}
    write(file, made | session)
