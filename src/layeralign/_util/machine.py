"""Limits of the machine, including those of a container, which libraries ignore."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_CGROUP = Path("/sys/fs/cgroup")
"""Where Linux publishes a container's limits (control groups, version 2)."""


def free_memory(device: torch.device) -> int:
    """Return the number of bytes that can still be allocated."""
    if device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    import psutil  # its import takes longer than most commands

    return min(int(psutil.virtual_memory().available), _left_in_container())


def _left_in_container() -> int:
    try:
        limit, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or no limit ("max")
        return 2**63
    return max(0, limit - used + int(stat.get("inactive_file", 0)))  # the page cache can be reclaimed


def settle_threads() -> None:
    """Limit the threads of torch, which is not loaded yet, to the container's cores.

    In a container that may use two of sixty-four cores, torch would start sixty-four threads, which wait for
    each other. An existing OMP_NUM_THREADS takes precedence.
    """
    allowed = _cores_of_container()
    if allowed == math.inf:
        return
    import psutil

    if allowed < (psutil.cpu_count(logical=False) or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(allowed))


def _cores_of_container() -> float:
    """Return the cores that this process may use, rounded up; infinity without a limit."""
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no container, or no limit ("max")
        return math.inf
