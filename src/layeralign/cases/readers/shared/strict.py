"""Strict parsing of untrusted text files: UTF-8, size limits, and precise error messages."""

from __future__ import annotations

import codecs
import csv
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layeralign._util.text import check_parts, has_lone_surrogate, lines_of
from layeralign.cases.readers.shared.gzipped import unpacked
from layeralign.errors import LayeralignError

MAX_BYTES, _PACKED = 512 * 2**20, 128 * 2**20
"""Largest file in bytes, and largest one that is packed; it is unpacked in memory."""
_PART = 2**20
"""Bytes that are decoded at once."""
_FOUR = range(0xF0, 0xF5)
"""First bytes of characters that take four, as in the text of each other character then."""
MAX_TEXT = 2**20
"""Longest field, in characters."""
MAX_ID = 200
"""Longest id, in characters."""
_LARGEST = 2**53


@dataclass(frozen=True)
class Row:
    """One record of a file.

    Attributes:
        where: File and line, for error messages.
        fields: Field name -> value.
    """

    where: str
    fields: Mapping[str, Any]

    def text(self, name: str, *, blank: bool = False) -> str:
        """The field's text; with `blank`, it may be empty.

        Raises:
            LayeralignError: The field is missing, not text, blank, too long, or not valid Unicode.
        """
        value = self._value(name)
        if not isinstance(value, str):
            raise LayeralignError(f"{self.where}: field {name!r} is {shown(value)}; expected text")
        if len(value) > MAX_TEXT:
            raise LayeralignError(
                f"{self.where}: field {name!r} has {len(value):,} characters; the limit is {MAX_TEXT:,}"
            )
        if "\0" in value:
            raise LayeralignError(f"{self.where}: field {name!r} has a null byte; expected text")
        if has_lone_surrogate(value):
            raise LayeralignError(
                f"{self.where}: field {name!r} has a lone surrogate; expected valid Unicode"
            )
        if not blank and not value.strip():
            raise LayeralignError(f"{self.where}: field {name!r} is empty; expected text")
        return value

    def one_of(self, name: str, allowed: Sequence[str]) -> str:
        """The field's text, which is one of `allowed`.

        Raises:
            LayeralignError: The field is missing or is another text.
        """
        value = self.text(name)
        if value not in allowed:
            expected = (" or " if len(allowed) == 2 else ", ").join(allowed)
            raise LayeralignError(f"{self.where}: field {name!r} is {shown(value)}; expected {expected}")
        return value

    def flag(self, name: str) -> bool:
        """The field's true or false.

        Raises:
            LayeralignError: The field is missing or not a boolean.
        """
        value = self._value(name)
        if not isinstance(value, bool):
            raise LayeralignError(f"{self.where}: field {name!r} is {shown(value)}; expected true or false")
        return value

    def number(self, name: str) -> int:
        """The field's integer, 0 to 2**53 - 1.

        Raises:
            LayeralignError: The field is missing or not such an integer.
        """
        value = self._value(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LARGEST:
            raise LayeralignError(f"{self.where}: field {name!r} is {shown(value)}; expected a whole number")
        return value

    def id(self, name: str) -> str:
        """The field's text as part of a case's id: at most `MAX_ID` characters, no blanks or slashes.

        Raises:
            LayeralignError: The field is missing or is not such a text.
        """
        value = self.text(name).strip()
        if len(value) > MAX_ID or not value.isprintable() or any(letter in ' /\\"' for letter in value):
            raise LayeralignError(
                f"{self.where}: field {name!r} is {shown(value)}; "
                f"expected an id of at most {MAX_ID} characters without blanks, quotes and slashes"
            )
        return value

    def rows(self, name: str) -> list[Row]:
        """The field's list of objects.

        Raises:
            LayeralignError: The field is missing or is not a list of objects.
        """
        value = self._value(name)
        if not isinstance(value, list):
            raise LayeralignError(f"{self.where}: field {name!r} is {shown(value)}; expected a list")
        return [row(item, f"{self.where}, {name}[{number}]") for number, item in enumerate(value)]

    def _value(self, name: str) -> Any:
        if name not in self.fields:
            raise LayeralignError(f"{self.where}: field {name!r} is missing")
        return self.fields[name]


def row(value: Any, where: str) -> Row:
    """The JSON object as a row.

    Raises:
        LayeralignError: The value is not an object.
    """
    if not isinstance(value, dict):
        raise LayeralignError(f"{where}: is {shown(value)}; expected a JSON object")
    return Row(where, value)


def shown(value: Any) -> str:
    """Format a value for a message: objects and lists by type only, long text truncated to 40 characters."""
    if isinstance(value, dict | list):
        return f"a JSON {'object' if isinstance(value, dict) else 'list'}"
    if isinstance(value, int) and not -_LARGEST < value < _LARGEST:
        return "a number of 2**53 or more in size"
    written = repr(value)
    return written if len(written) <= 40 else f"{written[:40]}…"


def claim(taken: dict[str, str], id: str, where: str) -> str:
    """Record that the id is used at `where`, and return the id.

    Raises:
        LayeralignError: The id is already used.
    """
    if id in taken:
        raise LayeralignError(f"{where}: id {id!r} is already used in {taken[id]}")
    taken[id] = where
    return id


def _raw(file: Path) -> bytes:
    """The file's bytes; `.gz` files are decompressed."""
    try:
        packed = file.suffix == ".gz"
        most = _PACKED if packed else MAX_BYTES
        with file.open("rb") as stream:
            raw = stream.read(most + 1)
        if packed and len(raw) <= most:
            raw, most = unpacked(raw, MAX_BYTES + 1), MAX_BYTES
        if len(raw) > most:
            raise LayeralignError(f"{file}: is larger than {most >> 20} MiB; expected a benchmark's file")
    except (OSError, EOFError, zlib.error) as error:
        raise LayeralignError(f"{file}: cannot be read ({error}); download it again") from error
    _check_utf8(raw, file)
    if b"\0" in raw:
        line = raw.count(b"\n", 0, raw.index(b"\0")) + 1
        raise LayeralignError(f"{file}:{line}: has a null byte; expected text; download the file again")
    check_parts(raw, str(file))
    return raw


def _check_utf8(raw: bytes, file: Path) -> None:
    """Check it part by part: a text with an emoji takes four bytes for each character."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(raw), _PART):
        begun = len(decoder.getstate()[0])
        try:
            decoder.decode(raw[start : start + _PART], start + _PART >= len(raw))
        except UnicodeDecodeError as error:
            raise LayeralignError(
                f"{file}: is not UTF-8 text (byte {start - begun + error.start:,}); expected the file as "
                "published"
            ) from error


def content(file: Path) -> str:
    """The file's text; `.gz` files are decompressed.

    Raises:
        LayeralignError: The file cannot be read, is not UTF-8, or has null bytes; or it is too large.
    """
    raw = _raw(file)
    if len(raw) > MAX_BYTES // 4 and any(bytes([first]) in raw for first in _FOUR):
        raise LayeralignError(
            f"{file}: is larger than {MAX_BYTES >> 22} MiB and has emoji; expected a benchmark's file"
        )
    return raw.decode("utf-8-sig")


def table(file: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of a CSV file whose header has at least these columns.

    Raises:
        LayeralignError: The file is not such a file, has no rows, or a row has too few or too many fields.
    """
    with _field_limit():
        records = list(_records(file))
    if not records:
        raise LayeralignError(f"{file}: is empty; expected a CSV header with {', '.join(columns)}")
    header = [name.strip() for name in records[0][1]]
    missing = [name for name in columns if name not in header]
    if missing:
        raise LayeralignError(f"{file}:1: column {missing[0]!r} is missing; expected {', '.join(columns)}")
    twice = [name for name, times in Counter(header).items() if times > 1]
    if twice:
        raise LayeralignError(f"{file}:1: column {shown(twice[0])} appears twice; expected each column once")
    for line, record in records[1:]:
        if len(record) != len(header):
            raise LayeralignError(
                f"{file}:{line}: has {len(record)} fields; expected {len(header)}, as in the header"
            )
    if len(records) == 1:
        raise LayeralignError(f"{file}: has no rows below its header; download it again")
    return [Row(f"{file}:{line}", dict(zip(header, record, strict=True))) for line, record in records[1:]]


def lines(file: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1.

    Raises:
        LayeralignError: There are none.
    """
    found = list(lines_of(_raw(file), str(file), "\n"))
    if not found:
        raise LayeralignError(f"{file}: is empty; expected one record per line")
    return found


def objects(file: Path) -> list[Row]:
    """The objects of a JSONL file, one per line.

    Raises:
        LayeralignError: A line is not an object, or the file is empty.
    """
    return [row(parsed(line, where), where) for where, line in _placed(file)]


def document(file: Path) -> Row:
    """The single JSON object in the file.

    Raises:
        LayeralignError: The file has something else.
    """
    text = content(file)
    if not text.strip():
        raise LayeralignError(f"{file}: is empty; expected a JSON object")
    return row(parsed(text, str(file)), str(file))


def listed(file: Path) -> list[Row]:
    """The objects of the single JSON list in the file.

    Raises:
        LayeralignError: The file has something else, or the list is empty.
    """
    text = content(file)
    if not text.strip():
        raise LayeralignError(f"{file}: is empty; expected a JSON list")
    found = parsed(text, str(file))
    if not isinstance(found, list) or not found:
        raise LayeralignError(f"{file}: is {shown(found)}; expected a list of at least one JSON object")
    return [row(item, f"{file}, entry {number}") for number, item in enumerate(found)]


def parsed(text: str, where: str) -> Any:
    """Parse JSON; duplicate names in an object, NaN and infinities are errors.

    Raises:
        LayeralignError: The text is not such JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise LayeralignError(f"{where}: is not valid JSON ({error})") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{shown(name)} appears twice")
        found[name] = value
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _placed(file: Path) -> Iterator[tuple[str, str]]:
    for number, line in lines(file):
        yield f"{file}:{number}", line


def _records(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The CSV records that are not blank, each with the number of its first line, from 1."""
    reader = csv.reader(io.StringIO(content(file), newline=""), strict=True)
    first = 1
    try:
        for record in reader:
            if record:
                yield first, record
            first = reader.line_num + 1
    except csv.Error as error:
        raise LayeralignError(f"{file}:{first}: is not valid CSV ({error})") from error


@contextmanager
def _field_limit() -> Iterator[None]:
    """Raise the csv module's field limit, which is global to the process, and restore it afterwards."""
    before = csv.field_size_limit(MAX_TEXT)
    try:
        yield
    finally:
        csv.field_size_limit(before)
