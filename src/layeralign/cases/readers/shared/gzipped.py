"""Text that is packed with gzip."""

from __future__ import annotations

import zlib

_MEMBERS = 20
"""Most parts of a packed file; each may be empty, and those of the benchmarks have one."""


def unpacked(packed: bytes, most: int) -> bytes:
    """Unpack gzip, up to `most` bytes; what is longer is cut there.

    Python's own gzip takes 100 ns for each byte of a name and of what is behind the end: minutes for a file.

    Raises:
        EOFError: it ends too early.
        zlib.error: it is no gzip, or damaged.
    """
    parts: list[bytes] = []
    for _ in range(_MEMBERS):
        one = zlib.decompressobj(wbits=31)
        parts.append(one.decompress(packed, most))
        most -= len(parts[-1])
        if not most:
            return b"".join(parts)
        if not one.eof:
            raise EOFError("it ends before its end marker")
        if not (packed := one.unused_data.lstrip(b"\0")):
            return b"".join(parts)
    raise zlib.error(f"it has more than {_MEMBERS} parts")
