"""Hostile pictures and case files. Every input lies in a folder with a good file of cases and a good picture."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

import drawn
from hostile_inputs.models import Build, fifo, links, sparse, writes

CASES, PICTURE = "cases.jsonl", "a.png"
ROW = {"id": "a", "prompt": "what is it?", "kind": "benign", "image": PICTURE}


def png(
    *chunks: tuple[bytes, bytes], size: tuple[int, int] = (8, 8), depth: int = 8, colour: int = 2
) -> bytes:
    """A PNG with these chunks after its header."""
    head = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in ((b"IHDR", head), *chunks, (b"IEND", b"")))


def animation(format: str, frames: int) -> bytes:
    """An animation of small frames."""
    out = BytesIO()
    made = [Image.new("RGB", (16, 16), (at % 256, at // 256 % 256, 0)) for at in range(frames)]
    made[0].save(out, format, save_all=True, append_images=made[1:])
    return out.getvalue()


def other(format: str, mode: str = "RGB") -> bytes:
    """A picture of a format that is not read."""
    return drawn.saved(Image.new(mode, (8, 8)), format)


def named(name: str) -> Build:
    """A case whose picture has this name."""
    return writes(CASES, json.dumps({**ROW, "image": name}))


_ZEROS = zlib.compress(b"\0" * 10**8, 9)
_GOOD = (b"IDAT", zlib.compress((b"\0" + b"\1\2\3" * 8) * 8))
_SIDES = ((2**31 - 1, 2**31 - 1), (10**5, 10**5), (50_000, 1_001), (0, 8), (2**31, 1))
_BMP = struct.pack("<2sIHHI", b"BM", 58, 0, 0, 54) + struct.pack(
    "<IiiHHIIiiII", 40, 2**30, 2**30, 1, 24, 0, 4, 0, 0, 0, 0
)
_GIF = (
    b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02L\x01\0;"
)
_JPEG = drawn.saved(Image.new("RGB", (8, 8)), "JPEG")
_LARGE = _JPEG.replace(struct.pack(">BHH", 8, 8, 8), struct.pack(">BHH", 8, 65500, 65500), 1)
_WHOLE = {name: content for name, (content, *_) in drawn.KINDS.items()}
PICTURES: dict[str, Build] = {
    **{f"header of {wide} x {high}": writes(PICTURE, png(_GOOD, size=(wide, high))) for wide, high in _SIDES},
    "bomb of 10^10 zeros": writes(PICTURE, png((b"IDAT", zlib.compress(_ZEROS * 100)), size=(7000, 7000))),
    "50 million pixels cut": writes(PICTURE, png((b"IDAT", _ZEROS), size=(7000, 7000))),
    "text bomb": writes(PICTURE, png((b"zTXt", b"a\0\0" + _ZEROS), _GOOD)),
    "other text bomb": writes(PICTURE, png((b"iTXt", b"a\0\1\0\0\0" + _ZEROS), _GOOD)),
    "profile bomb": writes(PICTURE, png((b"iCCP", b"a\0\0" + _ZEROS), _GOOD)),
    "10^5 text chunks": writes(PICTURE, png(*[(b"tEXt", b"a\0b")] * 10**5, _GOOD)),
    "chunk of 2^31": writes(PICTURE, png()[:33] + struct.pack(">I4s", 2**31, b"IDAT") + b"a" * 99),
    "APNG of 2^31 frames": writes(PICTURE, png((b"acTL", struct.pack(">II", 2**31 - 1, 0)), _GOOD)),
    "frame outside": writes(PICTURE, png((b"acTL", struct.pack(">II", 2, 0)), (b"fcTL", struct.pack(">IIIIIHHBB", 0, 9, 9, 2**30, 2**30, 1, 1, 0, 0)), _GOOD)),
    "16 bits": writes(PICTURE, png(_GOOD, depth=16)), "depth of 3": writes(PICTURE, png(_GOOD, depth=3)),
    "palette missing": writes(PICTURE, png(_GOOD, colour=3)), "no data": writes(PICTURE, png()),
    "BMP of 2^60 pixels": writes(PICTURE, _BMP), "GIF of 2^32 pixels": writes(PICTURE, _GIF), "JPEG of 2^32 pixels": writes(PICTURE, _LARGE),
    "GIF of 5,000 frames": writes(PICTURE, animation("GIF", 5000)), "WEBP of 500 frames": writes(PICTURE, animation("WEBP", 500)),
    **{f"half of {name}": writes(PICTURE, content[: len(content) // 2]) for name, content in list(_WHOLE.items())[:14]},
    **{format: writes(PICTURE, other(format)) for format in ("TIFF", "PPM", "ICO", "TGA", "PCX", "PDF", "EPS", "JPEG2000")},
    "CMYK": writes(PICTURE, other("JPEG", "CMYK")), "float": writes(PICTURE, other("TIFF", "F")),
    "EPS with code": writes(PICTURE, "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(canary) (w) file\n"),
    "SVG": writes(PICTURE, "<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>"), "text": writes(PICTURE, "hello"),
    "empty": writes(PICTURE, b""), "70 MB": sparse(PICTURE, 70 * 2**20), "8 GiB": sparse(PICTURE, 8 * 2**30), "FIFO": fifo(PICTURE),
    "endless": links(PICTURE, "/dev/zero"), "outside": links(PICTURE, "/etc/passwd"), "circle": links(PICTURE, PICTURE),
    "URL": named("http://127.0.0.1:9/a.png"), "data URL": named("data:image/png;base64,AAAA"), "absolute": named("/etc/passwd"),
    "above": named("../a.png"), "null": named("a\0.png"), "5,000 letters": named("n" * 5000), "surrogate": named("\ud800.png"),
    "4,000 folders": named("a/" * 2000 + "a.png"), "a folder": named("."), "device": named("/dev/zero"), "drive": named("C:\\a.png"),
}  # fmt: skip


def row(**fields: Any) -> Build:
    """A case with other fields."""
    return writes(CASES, json.dumps({**ROW, **fields}))


def table(content: str | bytes) -> Build:
    """A CSV file in place of JSON Lines."""

    def build(folder: Path, canary: Path) -> None:
        (folder / CASES).unlink()
        (folder / "cases.csv").write_bytes(content.encode() if isinstance(content, str) else content)

    return build


def folder_of_that_name(folder: Path, canary: Path) -> None:
    """A folder in place of the file."""
    (folder / CASES).unlink()
    (folder / CASES).mkdir()


_LINE = json.dumps({"id": "b", "prompt": "p", "kind": "benign"})
_TEXTS: dict[str, Callable[[], str | bytes]] = {
    "empty": lambda: "", "blank": lambda: "\n" * 10**6, "10^6 broken lines": lambda: "{\n" * 10**6, "not JSON": lambda: "{", "list": lambda: "[1]",
    "deep": lambda: "[" * 10**6, "deep and closed": lambda: '{"a":' * 10**5 + "1" + "}" * 10**5, "10^6 digits": lambda: '{"id": ' + "9" * 10**6 + "}",
    "NaN": lambda: '{"id": NaN}', "infinity": lambda: '{"id": 1e999}', "field twice": lambda: '{"id": "a", "id": "b"}', "10^6 fields, one twice": lambda: "{" + ",".join(f'"{n}":0' for n in range(10**6)) + ',"9":1}', "10^5 fields": lambda: json.dumps({str(n): n for n in range(10**5)}),
    "line of 100 MB": lambda: '{"id": "' + "a" * 10**8, "null byte": lambda: "\0", "UTF-16": lambda: _LINE.encode("utf-16"), "Latin-1": lambda: b'{"id": "\xe9"}',
    "surrogates as UTF-8": lambda: b'{"id": "\xed\xa0\x80"}', "carriage returns": lambda: f"{_LINE}\r{_LINE}", "separators": lambda: f"{_LINE}\u2028{_LINE}", "gzip": lambda: zlib.compress(_LINE.encode()),
    "one id twice": lambda: f"{_LINE}\n{_LINE}", "pickle": lambda: b"\x80\x04\x95", "two values": lambda: f"{_LINE} {_LINE}", "text": lambda: '"a"', "number": lambda: "1", "null": lambda: "null",
}  # fmt: skip
_TABLES = {
    "header alone": "id,prompt,kind\n", "no header": "a,b,benign\n", "open quote": 'id,prompt,kind\n"a', "cell of 10 MB": "id,prompt,kind\na," + "b" * 10**7 + ",benign\n",
    "10^6 columns": "," * 10**6 + "\n", "more cells": "id,prompt,kind\na,b,benign,c\n", "null byte": "id,prompt,kind\na,\0,benign\n", "column twice": "id,id,prompt,kind\na,b,c,benign\n",
    "quote inside": 'id,prompt,kind\na,b"c"d"e,benign\n"x"y,b,benign\n', "no text": b"\xff\xfe\x00",
}  # fmt: skip
_ODD: dict[str, dict[str, Any]] = {
    "id of 10^6": {"id": "a" * 10**6, "kind": "x"}, "id null": {"id": None}, "id number": {"id": 2**70}, "id list": {"id": [[]]}, "id blank": {"id": " \u200b ", "kind": " "},
    "kind": {"kind": "evil"}, "kind of 10^6": {"kind": "x" * 10**6}, "prompt surrogate": {"prompt": "\ud800"}, "prompt object": {"prompt": {"a": 1}}, "answers empty": {"answers": []},
    "answers numbers": {"answers": [1, 2]}, "answers text": {"answers": "x"}, "unknown field": {"nmae": 1}, "field of 10^6": {"n" * 10**6: 1}, "field surrogate": {"\ud800": 1},
    "field with escape": {"\x1b[31m\u202e": 1}, "reference number": {"reference": 1.5}, "category list": {"category": []}, "image number": {"image": 3}, "image empty": {"image": ""},
}  # fmt: skip
CASE_FILES: dict[str, Build] = {
    **{name: (lambda folder, canary, make=make: writes(CASES, make())(folder, canary)) for name, make in _TEXTS.items()},
    **{f"CSV: {name}": table(content) for name, content in _TABLES.items()},
    **{name: row(**fields) for name, fields in _ODD.items()},
    "FIFO": fifo(CASES), "endless": links(CASES, "/dev/zero"), "circle": links(CASES, CASES), "folder": folder_of_that_name,
    "8 GiB of zeros": sparse(CASES, 8 * 2**30),
}  # fmt: skip
