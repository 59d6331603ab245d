"""A scan, or a judge, on the workers of a Ray cluster. This process alone writes the run."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layeralign._util.terminal import say
from layeralign.cases.case import Case
from layeralign.decode.stream import Query
from layeralign.errors import LayeralignError
from layeralign.judges.judge import Exchange, Judge, Judgement
from layeralign.judges.kinds import kind_of
from layeralign.judges.registry import judges
from layeralign.runs.store import Row, Run
from layeralign.sweep.pool import Cluster, Pool, connected, differing
from layeralign.sweep.settings import ScanSettings
from layeralign.sweep.sweep import Engine, sweep
from layeralign.vlm.identity import identity, versions
from layeralign.vlm.load import load as load_model
from layeralign.vlm.vlm import Vlm

ROWS = 256
"""Most rows of a part; a part never splits a picture, unless it alone has more rows."""
Part = tuple[Sequence[Query], ScanSettings]
"""Queries, and how to answer them."""


class Answerer:
    """Answers parts of a scan."""

    def __init__(self, folder: str, load: Mapping[str, Any]) -> None:
        """Load the model.

        Args:
            folder: the working folder of the process that writes the run.
            load: the arguments of `layeralign.vlm.load.load`.
        """
        os.chdir(folder)
        self._vlm = load_model(**load)

    def about(self) -> dict[str, Any]:
        """See `Worker.about`."""
        return {"identity": identity(self._vlm), **_place()}

    def do(self, part: Part) -> list[Row]:
        """Answer a part."""
        return [row for rows in Engine(self._vlm).answers(*part) for row in rows]


class Judging:
    """Judges parts of a run's answers."""

    def __init__(self, folder: str, name: str) -> None:
        """Load the judge."""
        os.chdir(folder)
        self._judge = judges([name])[0].load()

    def about(self) -> dict[str, Any]:
        """See `Worker.about`."""
        like = {"record": self._judge.record(), "sees": self._judge.sees, "together": self._judge.together}
        return like | _place()

    def do(self, part: Sequence[Exchange]) -> list[Judgement]:
        """Judge a part."""
        return self._judge.judge_all(part)


def _place() -> dict[str, Any]:
    return {"versions": {k: v for k, v in versions().items() if k != "machine"}, "node": socket.gethostname()}


def sweep_on(
    cluster: Cluster,
    load: Mapping[str, Any],
    vlm: Vlm,
    cases: Sequence[Case],
    out: Path,
    settings: ScanSettings,
) -> Run:
    """Scan as `layeralign.sweep.sweep.sweep`, with the answers of a cluster's workers.

    Args:
        cluster: the cluster.
        load: the arguments of `layeralign.vlm.load.load`, for the workers.
        vlm: the same model in this process, which may be on the CPU; it answers nothing.
        cases: the cases.
        out: the run's folder.
        settings: the scan's settings.

    Raises:
        LayeralignError: as `sweep`, or the cluster is not there, has no room, or loads another model.
    """
    with connected(cluster):
        pool = Pool(cluster, Answerer, str(Path.cwd()), dict(load))
        if other := differing({"identity": identity(vlm), "versions": _place()["versions"]}, pool.about()):
            raise LayeralignError(f"ray: the workers have another {other} than this process")

        made = sweep(vlm, cases, out, settings, _Workers(vlm, pool))
        for name, (rows, seconds) in pool.did.items():
            say(f"{name}: {rows} answers, {rows / seconds:.1f}/s", stderr=True)
        return made


class _Workers(Engine):
    """The workers of a pool."""

    def __init__(self, vlm: Vlm, pool: Pool) -> None:
        super().__init__(vlm)
        self._pool, self.workers = pool, pool.size

    def answers(self, asked: Sequence[Query], settings: ScanSettings) -> Iterator[list[Row]]:
        """See `Engine.answers`."""
        each = parts(asked, self._pool.size)
        for number, made in self._pool.map([(part, settings) for part in each]):
            if Counter(row.key for row in made) != Counter((case.id, *at) for case, *at in each[number]):
                raise LayeralignError("ray: a worker gave other rows than it was asked for; repeat the scan")
            yield made


def parts(asked: Sequence[Query], workers: int) -> list[list[Query]]:
    """Split queries into four parts per worker or more; consecutive queries of a picture stay together."""
    size = max(1, min(ROWS, -(-len(asked) // (4 * workers))))
    made: list[list[Query]] = []
    before: object = None
    for query in asked:
        picture = query[0].picture.sha256 if query[0].picture else query[0].id
        if not made or len(made[-1]) >= ROWS or (len(made[-1]) >= size and picture != before):
            made.append([])
        made[-1].append(query)
        before = picture
    return made


class PooledJudge(Judge):
    """A judge on every worker."""

    def __init__(self, name: str, cluster: Cluster) -> None:
        self.kind, self._name = kind_of(name), name
        self._pool = Pool(cluster, Judging, str(Path.cwd()), name)
        like = self._pool.about()
        self.sees, self.together = bool(like["sees"]), 2 * int(like["together"]) * self._pool.size

    @property
    def name(self) -> str:
        """See `Judge.name`."""
        return self._name

    def record(self) -> dict[str, Any]:
        """See `Judge.record`."""
        found: dict[str, Any] = self._pool.about()["record"]
        return found

    def judge_all(self, asked: Sequence[Exchange]) -> list[Judgement]:
        """See `Judge.judge_all`."""
        size = max(1, -(-len(asked) // (2 * self._pool.size)))
        some = [asked[start : start + size] for start in range(0, len(asked), size)]
        found = dict(self._pool.map(some))
        if any(len(found[number]) != len(part) for number, part in enumerate(some)):
            raise LayeralignError(
                "ray: a worker gave more or fewer verdicts than answers; repeat the command"
            )
        return [judgement for number in range(len(some)) for judgement in found[number]]


@contextmanager
def pooled(cluster: Cluster, name: str) -> Iterator[PooledJudge]:
    """A judge on every worker of a cluster, as long as the block lasts."""
    with connected(cluster):
        yield PooledJudge(name, cluster)
