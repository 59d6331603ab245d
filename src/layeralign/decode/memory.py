"""How much memory there is to decode with."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch

_SHARE = 0.8
"""Of what is free; the rest is for the encoder, for prompts under way and for others on the machine."""
_CGROUP = Path("/sys/fs/cgroup")


def budget(device: torch.device) -> int:
    """Bytes that keys and values may take."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(_SHARE * (free + kept))
    return int(_SHARE * min(int(psutil.virtual_memory().available), _left_in_container()))


def _left_in_container() -> int:
    """What a container still allows (control groups, version 2), which is not what the machine has."""
    try:
        limit, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # there is no container, or it has no limit ("max")
        return 2**63
    return max(0, limit - used + int(stat.get("inactive_file", 0)))  # files that were read make way
