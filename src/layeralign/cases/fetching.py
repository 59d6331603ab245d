"""Public benchmarks by name: missing files are downloaded from the authors' publication into the cache."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from layeralign._util.files import atomic
from layeralign._util.progress import Progress
from layeralign._util.text import printable
from layeralign.cases import cache, pictures
from layeralign.cases.origins import Missing, Origin
from layeralign.cases.readers.reader import Benchmark
from layeralign.errors import LayeralignError


def folder(benchmark: Benchmark) -> Path:
    """The benchmark's cache folder; files that have to be downloaded by hand go there, too."""
    return cache.folder(benchmark.place or benchmark.name)


def told(benchmark: Benchmark) -> str:
    """One line for the user: the benchmark's licence, source, revision and cache folder."""
    at = f"revision {benchmark.revision}" if benchmark.revision else "no revision published"
    return printable(
        f"{benchmark.title}: licence {benchmark.licence}; from {benchmark.source}, {at}; "
        f"cached in {folder(benchmark)}"
    )


def fetched(benchmark: Benchmark, limit: int | None, seed: int) -> Path:
    """Download the benchmark's missing files, check the others, and return their folder.

    Pictures that the origin lacks are not an error here: the reader explains how to get them.

    Args:
        benchmark: A benchmark with an origin.
        limit: The reader's limit; only the pictures of those cases are downloaded.
        seed: The reader's seed.

    Raises:
        LayeralignError: A file cannot be downloaded, or differs from its first download.
    """
    name, origin = benchmark.name, benchmark.origin
    if origin is None:
        raise LayeralignError(
            f"cases {name}: has no download, it is built from your own files; expected {name}:FOLDER "
            f"with {', '.join(benchmark.files)}"
        )
    place = folder(benchmark)
    try:
        texts = [path for path in benchmark.texts if not _has_text(benchmark, place / path)]
        if texts:
            print(told(benchmark), file=sys.stderr)
            try:
                _get(benchmark, origin, texts)
            except LayeralignError as error:
                raise LayeralignError(f"{error} (or read your own copy with {name}:FOLDER)") from error
        if benchmark.pictures is not None:
            names = dict.fromkeys(benchmark.pictures(place, limit, seed))
            wanted = [name for name in names if not pictures.leaves(name)]  # the reader reports unsafe names
            with suppress(Missing):
                _get(
                    benchmark, origin, [name for name in wanted if not _has_picture(benchmark, place / name)]
                )
    except LayeralignError as error:
        raise LayeralignError(printable(str(error))) from error
    except (OSError, ValueError) as error:
        raise LayeralignError(printable(f"{place}: cannot be used ({error})")) from error
    return place


def _has_text(benchmark: Benchmark, file: Path) -> bool:
    if cache.held(file, benchmark.revision):
        return True
    if file.exists():
        raise LayeralignError(
            f"{file}: was not downloaded by layeralign; remove it to download it, or read your own copy "
            f"with {benchmark.name}:FOLDER"
        )
    return False


def _has_picture(benchmark: Benchmark, file: Path) -> bool:
    return cache.held(file, benchmark.revision) or file.exists()  # it may have been put there by hand


def _get(benchmark: Benchmark, origin: Origin, paths: Sequence[str]) -> None:
    with Progress(f"{benchmark.name}: fetched", len(paths)) as progress:
        for path in paths:
            _get_one(benchmark, origin, path)
            progress.advance(1)


def _get_one(benchmark: Benchmark, origin: Origin, path: str) -> None:
    file = folder(benchmark) / path
    file.parent.mkdir(parents=True, exist_ok=True)
    most = benchmark.texts[path] * 2**20 if path in benchmark.texts else pictures.MAX_BYTES
    with atomic(file) as draft:
        origin.fetch(benchmark.revision, path, draft, most)
        url, now = origin.url(benchmark.revision, path), datetime.now(UTC).isoformat(timespec="seconds")
        cache.record(draft, file, url, benchmark.revision, benchmark.licence, now)
