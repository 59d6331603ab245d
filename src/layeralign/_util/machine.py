"""What may be used of a machine: a container can allow less than there is, and libraries do not look."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

_CGROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may use (control groups, version 2)."""


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had."""
    if device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return min(int(psutil.virtual_memory().available), _left_in_container())


def _left_in_container() -> int:
    try:
        limit, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # there is no container, or it has no limit ("max")
        return 2**63
    return max(0, limit - used + int(stat.get("inactive_file", 0)))  # files that were read make way


def settle_threads() -> None:
    """Let torch, which is not loaded yet, start no more threads than a container has cores to run them.

    In a container that may use two of sixty-four cores it starts one for each of the sixty-four, and they
    wait for each other. OMP_NUM_THREADS goes before this.
    """
    allowed = _cores_of_container()
    if allowed < (psutil.cpu_count(logical=False) or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(allowed))


def _cores_of_container() -> float:
    """Cores that this process may keep busy, rounded up; infinity where nothing says how many."""
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # there is no container, or it has no limit ("max")
        return math.inf
