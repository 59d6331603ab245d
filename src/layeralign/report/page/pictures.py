"""Small copies of the cases' pictures, for the page."""

from __future__ import annotations

from collections.abc import Iterable

from layeralign.analysis.results import Results
from layeralign.cases.pictures import FilePicture, data_url
from layeralign.errors import LayeralignError
from layeralign.testbed.drawn import drawn

SIDE = 160
"""Maximum width and height of a small copy, in pixels."""
MOST = 500
"""Maximum number of pictures in a page."""


def thumbnails(results: Results, ids: Iterable[str]) -> dict[str, str]:
    """Return small copies as data URLs, by the SHA-256 of the picture.

    A picture is left out if its file is gone or has changed since the scan, or if it never was a file.

    Args:
        results: the run.
        ids: cases, the most wanted first; the first `MOST` pictures are used.
    """
    hashes = {id: (path, sha256) for id, path, sha256 in results.pictures}
    wanted: dict[str, str] = {}
    for id in ids:
        if id in hashes and len(wanted) < MOST:
            wanted.setdefault(hashes[id][1], id)
    invented, found = drawn(wanted.values()), {}
    for sha256, id in wanted.items():
        path, picture = hashes[id][0], invented.get(id)
        if picture is None or picture.sha256 != sha256:
            picture = FilePicture(path, sha256) if path else None
        if picture is None:
            continue
        try:
            small = picture.open()
            small.thumbnail((SIDE, SIDE))
            found[sha256] = data_url(small, "WEBP", quality=80, lossless=max(small.size) < SIDE // 2)
        except LayeralignError:  # gone or changed since: the page does without it
            continue
    return found
