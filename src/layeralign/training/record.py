"""What a training was made from, on disk: two trainings are the same where their records are."""

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

from layeralign._util import files
from layeralign.cases.case import Case
from layeralign.decode import checks
from layeralign.errors import LayeralignError
from layeralign.rewards.reward import Reward
from layeralign.training import checkpoint
from layeralign.training.settings import Settings
from layeralign.vlm.checkpoint import TRAINED_ON, TRAINING, read_json
from layeralign.vlm.identity import identity, versions
from layeralign.vlm.vlm import Vlm

FILE = TRAINING
_OURS = (FILE, TRAINED_ON, checkpoint.FILE, "log.jsonl", "start.json", "tensorboard")


def record(
    vlm: Vlm, cases: Sequence[Case], reward: Reward | None, settings: Settings, processes: int
) -> dict[str, Any]:
    """What shapes an adapter, as JSON; and the model's name, which does not."""
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
    """With the day that a chat template is told: that of the training in `out`, else today.

    Raises:
        LayeralignError: there is a record in `out` that cannot be read.
    """
    known = read_json(out / FILE).get("settings") if (out / FILE).is_file() else None
    was = str(known.get("date", "")) if isinstance(known, dict) else ""
    today = datetime.now(UTC).date().isoformat()
    return replace(settings, date=checks.dated(vlm, settings.decoding(), was, today).date)


def begin(out: Path, made: dict[str, Any], cases: Sequence[Case]) -> None:
    """Make the folder, or see that it holds the same training. One that took no step is made anew.

    The hash of each case goes into a file of its own, so that a scan can tell if it asks what was trained on.

    Raises:
        LayeralignError: `out` holds another training, or something else.
    """
    file = out / FILE
    if file.exists() and checkpoint.exists(out):
        _compare(out, made)
        return
    if out.exists() and not (
        out.is_dir() and all(f.name.lstrip(".").startswith(_OURS) for f in out.iterdir())
    ):
        raise LayeralignError(f"out {out}: is not empty and holds no training; use a new folder")
    out.mkdir(parents=True, exist_ok=True)
    (out / "start.json").unlink(missing_ok=True)  # of a training that took no step, perhaps of other cases
    shown = sorted({case.asked for case in cases})
    files.write_json(out / TRAINED_ON, {"asked": shown})
    session = {"started": datetime.now(UTC).isoformat(timespec="seconds"), "command": shlex.join(sys.argv)}
    files.write_json(file, made | session | {"versions": versions()})


def _compare(out: Path, made: dict[str, Any]) -> None:
    try:
        found = json.loads((out / FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise LayeralignError(f"out {out}: {FILE} is not valid JSON; use a new folder") from error
    for key in made.keys() - {"model"}:
        was, now = found.get(key), made[key]
        if was == now:
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            inner = min(k for k in {*was, *now} if was.get(k) != now.get(k))
            key, was, now = f"{key}.{inner}", was.get(inner), now.get(inner)  # noqa: PLW2901
        raise LayeralignError(
            f"out {out}: holds another training: it has {key} = {json.dumps(was)[:60]}, this command asks "
            f"for {json.dumps(now)[:60]}; use another --out, or the same settings"
        )
