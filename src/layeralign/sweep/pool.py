"""Workers of a Ray cluster. Ray places them and carries what they are asked.

A worker that dies is replaced, and another one does its part again.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

from layeralign._util import stopping
from layeralign._util.text import printable
from layeralign.errors import LayeralignError

_LEAST = 0.0001
"""Smallest share of a GPU that Ray knows."""
DEATHS = 3
"""Workers that may die one after the other, per worker, before a part is done."""
PATIENCE = 30.0
"""Seconds between two notes that no worker has started yet."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and how many workers are wanted.

    Attributes:
        address: `auto` for the cluster that this machine belongs to, `local` for one that is started here and
            ends with the command, or an address, `HOST:PORT` or `ray://HOST:PORT`.
        workers: number of workers; by default one per node, or with `gpus_per_worker` one per GPU share.
        gpus_per_worker: GPUs of each worker, also a share of one; 0 for none.
    """

    address: str
    workers: int | None = None
    gpus_per_worker: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            LayeralignError: a number is too small, or none.
        """
        if self.workers is not None and self.workers < 1:
            raise LayeralignError(f"workers {self.workers}: expected at least 1")
        if self.gpus_per_worker != 0 and not _LEAST <= self.gpus_per_worker < inf:
            raise LayeralignError(f"gpus_per_worker {self.gpus_per_worker}: expected 0, or {_LEAST} or more")

    @classmethod
    def of(cls, ray: str | None, workers: int | None, gpus_per_worker: float) -> Cluster | None:
        """The cluster of these flags or arguments; None without `ray`.

        Raises:
            LayeralignError: a number is too small, or belongs to a cluster that is not given.
        """
        if ray is not None:
            return cls(ray, workers, gpus_per_worker)
        if workers is not None or gpus_per_worker:
            raise LayeralignError("workers and gpus_per_worker: belong to ray, which is not given")
        return None


class Worker(Protocol):
    """What runs in a process of the cluster."""

    def about(self) -> dict[str, Any]:
        """What has to be the same on every worker, and `node`, where it runs."""

    def do(self, part: Any) -> list[Any]:
        """Do a part; returns an item for each of its queries or answers."""


class Pool:
    """Workers of one kind.

    Attributes:
        size: the number of workers.
        did: worker -> the number of items that it did, and the seconds that they took.
    """

    def __init__(self, cluster: Cluster, kind: type[Worker], *arguments: Any) -> None:
        """Start the workers; each loads what it needs.

        Raises:
            LayeralignError: the cluster has no room for so many workers.
        """
        import ray

        have, share = ray.cluster_resources(), cluster.gpus_per_worker
        cpus, gpus = int(have.get("CPU", 0)), have.get("GPU", 0.0)
        nodes = sum(bool(node["Alive"]) for node in ray.nodes())
        self.size = cluster.workers or max(1, int(gpus / share) if share else nodes)
        if self.size > cpus or self.size * share > gpus:
            raise LayeralignError(
                f"ray: the cluster has {cpus} CPUs and {gpus:g} GPUs, too few for {self.size} workers with "
                f"{share:g} GPUs each; expected fewer workers, or a smaller gpus_per_worker"
            )
        self._ray, self._arguments = ray, arguments
        self._actor = ray.remote(kind).options(
            num_cpus=max(1, cpus // self.size), num_gpus=share, scheduling_strategy="SPREAD", max_restarts=0
        )
        self._busy: dict[
            Any, tuple[Any, int | None]
        ] = {}  # what is awaited -> the worker, and its part's number
        self._idle: list[Any] = []
        self._like: dict[str, Any] = {}
        self._names: dict[Any, str] = {}
        self.did: dict[str, tuple[int, float]] = {}
        for _ in range(self.size):
            self._start()

    def about(self) -> dict[str, Any]:
        """What the first worker says of itself, as soon as it has started."""
        deaths = 0
        while not self._like:
            actor, _, told = self._next()
            if actor is None:
                deaths = self._died(deaths, told)
            else:
                self._began(actor, told)
        return self._like

    def map(self, parts: Sequence[Any]) -> Iterator[tuple[int, list[Any]]]:
        """Do every part; yields its number and the items that were made of it, as the parts end.

        Raises:
            LayeralignError: a worker refuses a part or differs from the others, or workers die again and
                again.
        """
        waiting, done, deaths = deque(range(len(parts))), 0, 0
        since: dict[Any, float] = {}
        while done < len(parts):
            while waiting and self._idle:
                actor, number = self._idle.pop(), waiting.popleft()
                self._busy[actor.do.remote(parts[number])] = actor, number
                since[actor] = time.monotonic()
            actor, part, told = self._next()
            if actor is None:
                deaths = self._died(deaths, told)
                waiting.extendleft([] if part is None else [part])
            elif part is None:
                self._began(actor, told)
            else:
                deaths, done = 0, done + 1
                items, seconds = self.did.get(self._names[actor], (0, 0.0))
                self.did[self._names[actor]] = items + len(told), seconds + time.monotonic() - since[actor]
                self._idle.append(actor)
                yield part, told

    def _start(self) -> None:
        actor = self._actor.remote(*self._arguments)
        self._busy[actor.about.remote()] = actor, None

    def _next(self) -> tuple[Any, int | None, Any]:
        """Wait for a worker; returns it, its part's number (None if it started), and what it says.

        The worker is None where it has died.

        Raises:
            LayeralignError: no node is left on which a worker could start.
        """
        while not (ready := self._ray.wait(list(self._busy), num_returns=1, timeout=PATIENCE)[0]):
            if not any(node["Alive"] for node in self._ray.nodes()):
                raise LayeralignError("ray: no node of the cluster is alive any more; repeat the command")
            if all(number is None for _, number in self._busy.values()):
                print("note: no worker has started yet: it loads, or waits for room", file=sys.stderr)
        actor, number = self._busy.pop(ready[0])
        try:
            return actor, number, self._ray.get(ready[0])
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:  # the worker died, or its node with what it had made
            self._ray.kill(actor)  # it may only be out of reach, and hold its place
            return None, number, error

    def _died(self, deaths: int, error: Exception) -> int:
        """Replace a worker; returns how many have died since a part was done."""
        if deaths == DEATHS * self.size:
            why = printable(str(error).strip().split("\n")[0], 200)
            raise LayeralignError(f"ray: {deaths + 1} workers died one after the other: {why}") from error
        self._start()
        return deaths + 1

    def _began(self, actor: Any, told: dict[str, Any]) -> None:
        same = {name: value for name, value in told.items() if name != "node"}
        self._like = self._like or same
        if other := differing(self._like, same):
            node = printable(told["node"], 80)
            raise LayeralignError(f"ray: the worker on {node} has another {other} than the first")
        self._names[actor] = f"worker {len(self._names) + 1} on {printable(told['node'], 80)}"
        self._idle.append(actor)


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The name of the first value that differs, such as `identity dtype`; empty if none does."""
    for name in sorted(one.keys() | other.keys()):
        mine, theirs = one.get(name), other.get(name)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            if inner := differing(mine, theirs):
                return f"{name} {inner}"
        elif mine != theirs:
            return name
    return ""


@contextmanager
def connected(cluster: Cluster) -> Iterator[None]:
    """Connect this process to the cluster, and disconnect it at the end.

    Raises:
        LayeralignError: Ray is not installed, or no cluster is at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise LayeralignError("ray: is not installed; pip install 'layeralign[ray]'") from error
    _check_reachable(cluster.address)
    try:
        local = {"include_dashboard": False} if cluster.address == "local" else {}
        with stopping.kept():
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR", **local)
    except Exception as error:  # Ray raises many types, also a plain exception
        why = printable(str(error).strip().split("\n")[0], 200).rstrip(".")
        raise LayeralignError(f"ray {cluster.address}: {why}; start one with ray start --head") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Ray itself waits for long where nothing listens at an address."""
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise LayeralignError(
            f"ray {printable(address, 80)}: expected auto, local, HOST:PORT or ray://HOST:PORT"
        )
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise LayeralignError(f"ray {printable(address, 80)}: nothing answers there ({error})") from error
