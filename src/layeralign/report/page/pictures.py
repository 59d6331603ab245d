"""Small copies of the cases' pictures, for the page."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from io import BytesIO

from PIL import Image

from layeralign.analysis.results import Results
from layeralign.cases.pictures import FilePicture
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
    invented = {id: one for id, one in drawn(wanted.values()).items() if one.sha256 == hashes[id][1]}
    found = {}
    for sha256, id in wanted.items():
        path = hashes[id][0]
        picture = invented.get(id) or (FilePicture(path, sha256) if path else None)
        if picture is None:
            continue
        try:
            found[sha256] = _data_url(picture.open())
        except LayeralignError:  # gone or changed since: the page does without it
            continue
    return found


def _data_url(picture: Image.Image) -> str:
    picture.thumbnail((SIDE, SIDE))
    out = BytesIO()
    picture.save(out, "WEBP", quality=80, lossless=max(picture.size) < SIDE // 2)
    return f"data:image/webp;base64,{b64encode(out.getvalue()).decode()}"
