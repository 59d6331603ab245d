"""What may be used of a machine: a container can allow less than there is, and libraries do not look."""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil
import torch

_CGROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may use (control groups, version 2)."""


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had."""
    if device.type == "cuda":
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
    """Let torch have no more threads than there are cores to run them; OMP_NUM_THREADS goes before it.

    In a container that may use two of sixty-four cores torch starts as many threads as the machine has cores,
    and they wait for each other.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), _cores()))


def _cores() -> int:
    """Cores that this process may use, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores
