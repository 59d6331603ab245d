"""What can be wrong with a benchmark's files: the faults that the tests of all readers share."""

import gzip
import os
import re
import shutil
import struct
import zlib
from dataclasses import dataclass

import pytest
from PIL import Image

from layeralign import LayeralignError
from layeralign.cases.readers.reader import read
from layeralign.cases.readers.shared import strict
from published import deck, picture, write, write_csv, write_json

SMALL = 2 * 2**20
"""Largest file while a fault is tested, in bytes."""


@dataclass
class Fault:
    name: str
    make: object
    label: str
    change: object
    says: str
    file: str

    def __str__(self):
        return f"{self.name}-{self.make.__name__}-{self.label}".replace(" ", "_")


def swap(file, old, new):
    text = file.read_text(encoding="utf-8")
    assert old in text
    write(file, text.replace(old, new))


def bomb() -> bytes:
    """A PNG that says it has 10^10 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"0"))
        + chunk(b"IEND", b"")
    )


def half_picture(file):
    Image.frombytes("RGB", (64, 64), os.urandom(64 * 64 * 3)).save(file)
    file.write_bytes(file.read_bytes()[:1500])


def link_out(file):
    outside = file.parent.parent.parent.parent / "outside.png"
    picture(outside)
    file.unlink(missing_ok=True)
    file.symlink_to(outside)


def as_folder(file):
    file.unlink()
    file.mkdir()


def packed(file, content):
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


FILE_FAULTS = {
    "missing": (lambda f: f.unlink(), "no such file|has no"),
    "a folder": (as_folder, "no such file|has no|cannot be read"),
    "empty": (lambda f: packed(f, b""), "is empty"),
    "blank": (lambda f: packed(f, b"\n \n\n"), "is empty|fields?; |is missing"),
    "latin-1": (lambda f: packed(f, b"caf\xe9 \xff"), "not UTF-8"),
    "utf-16": (lambda f: packed(f, "id,prompt".encode("utf-16")), "not UTF-8"),
    "null bytes": (lambda f: packed(f, b"a\0b\n"), "null byte"),
    "a picture": (lambda f: (f.unlink(), f.write_bytes(bomb())), "not UTF-8|cannot be read"),
    "too large": (lambda f: packed(f, b"a\n" * SMALL), "larger than 2 MiB"),
}


def file_faults(name, make, file):
    for label, (change, says) in FILE_FAULTS.items():
        wanted = "{test,train}.jsonl.gz" if name == "hh-rlhf" and label in ("missing", "a folder") else file
        if name == "mm-safetybench" and label == "missing":
            continue  # a scenario may be left out
        yield Fault(name, make, label, lambda f, c=change: c(f / file), says, wanted)


def csv_faults(name, make, file, rows, columns, id, prompt):
    """What can be wrong with a table; `columns` have to be there, none of `prompt` may be blank."""

    def fault(label, change, says):
        return Fault(name, make, label, lambda f: change(f / file), says, file)

    def changed(field, value):
        def change(f):
            wrong = rows()
            wrong[1][field] = value
            write_csv(f, wrong)

        return change

    kept = list(rows()[0])
    yield from file_faults(name, make, file)
    for column in columns:
        rest = [other for other in kept if other != column]
        yield fault(
            f"no {column}", lambda f, rest=rest: write_csv(f, rows(), rest), f"column '{column}' is missing"
        )
    yield fault("header alone", lambda f: write(f, f.read_text().split("\n")[0] + "\n"), "has no rows")
    yield fault("a column twice", lambda f: write(f, f"{','.join([*kept, kept[0]])}\n"), "appears twice")
    yield fault(
        "a field too many", lambda f: write(f, f.read_text() + ",".join("x" * 40) + "\n"), "has 40 fields"
    )
    yield fault("half a record", lambda f: write(f, f.read_text() + "x\n"), "has 1 fields")
    yield fault("an open quote", lambda f: write(f, f.read_text() + '9,"never closed'), "not valid CSV")
    yield fault("a stray quote", lambda f: write(f, f.read_text() + '9,"a"b,c\n'), "not valid CSV")
    yield fault(
        "an absurd field", lambda f: write(f, f.read_text() + "x" * (2**20 + 9) + "\n"), "field limit"
    )
    for field in prompt:
        yield fault(f"blank {field}", changed(field, "  "), f"field '{field}' is empty")
    if id:
        yield fault("an id twice", changed(id, rows()[0][id]), r"is already used in .*:2\b")
        yield fault("no id", changed(id, ""), f"field '{id}' is empty")
        yield fault("a path as id", changed(id, "../../x"), "without blanks, quotes and slashes")
        yield fault("a long id", changed(id, "x" * 300), "at most 200")
        yield fault("an escape sequence as id", changed(id, "\x1b[2J"), "expected an id")


def json_faults(name, make, file, value):
    """What can be wrong with a JSON document of any sort; `value` is a right one."""

    def fault(label, change, says):
        return Fault(name, make, label, lambda f: change(f / file), says, file)

    yield from file_faults(name, make, file)
    yield fault("half of it", lambda f: write(f, f.read_text()[:-20]), "not valid JSON")
    yield fault("a list", lambda f: write_json(f, [value()]), "expected a JSON object")
    yield fault("a number", lambda f: write(f, "3"), "expected a JSON object")
    yield fault("null", lambda f: write(f, "null"), "expected a JSON object")
    yield fault("NaN", lambda f: write(f, '{"a": NaN}'), "not valid JSON")
    yield fault("a name twice", lambda f: write(f, '{"a": 1, "a": 2}'), "appears twice")
    yield fault("depth", lambda f: write(f, "[" * 100_000), "not valid JSON")
    yield fault("an endless number", lambda f: write(f, '{"a": ' + "9" * 5000 + "}"), "not valid JSON")
    yield fault("two documents", lambda f: write(f, "{}{}"), "not valid JSON")
    yield fault("no entry", lambda f: write(f, "{}"), "has no|is missing")


def field_faults(name, make, file, value, reach, fields):
    """One field of one record wrong; `reach` finds the record in the document."""

    def fault(label, change, says):
        def apply(folder):
            wrong = value()
            change(reach(wrong))
            write_json(folder / file, wrong)

        return Fault(name, make, label, apply, says, file)

    for field, kind in fields.items():
        named = re.escape(f"'{field}'")
        yield fault(f"no {field}", lambda r, f=field: r.pop(f), named)
        for wrong in (None, {}, "yes" if kind is bool else True, -1 if kind is int else 3):
            yield fault(
                f"{wrong} as {field}", lambda r, f=field, w=wrong: r.update({f: w}), f"{named}.*expected"
            )  # fmt: skip
        if kind is str:
            yield fault(f"blank {field}", lambda r, f=field: r.update({f: " "}), f"{named} is empty")
            yield fault(
                f"half a character in {field}", lambda r, f=field: r.update({f: "a\ud800"}), "lone surrogate"
            )
            yield fault(f"null byte in {field}", lambda r, f=field: r.update({f: "a\0"}), "null byte")
            yield fault(
                f"absurd {field}",
                lambda r, f=field: r.update({f: "x" * (2**20 + 1)}),
                "characters; the limit",
            )
        if kind is int:
            yield fault(f"absurd {field}", lambda r, f=field: r.update({f: 10**30}), "whole number")


def picture_faults(name, make, first, file):
    """What can be wrong with the picture `first`, which the table or document `file` names."""
    changes = {
        "no picture": (lambda f: f.unlink(), "no such file"),
        "text as picture": (lambda f: f.write_text("no picture"), "is not a picture"),
        "empty picture": (lambda f: f.write_bytes(b""), "is not a picture"),
        "half a picture": (half_picture, "truncated or corrupt"),
        "bomb": (lambda f: f.write_bytes(bomb()), "pixels"),
        "a linked picture": (link_out, "is a link that leaves"),
        "a folder as picture": (as_folder, "no such file"),
        "a deep picture": (lambda f: Image.new("I;16", (4, 4)).save(f, format="PNG"), "more than 8 bits"),
        "a huge file": (lambda f: os.truncate(f, 65 * 2**20), "larger than 64 MiB"),
    }
    for label, (change, says) in changes.items():
        yield Fault(name, make, label, lambda f, c=change: c(f / first), says, file)


def path_faults(name, make, file, old):
    """The path of a picture wrong; the file's text has it as `old`."""
    changes = {
        "a way out": ("../outside.png", r"without '\.\.'"),
        "a way out in between": ("a/../../outside.png", r"without '\.\.'"),
        "an absolute path": ("/etc/hostname", "leaves the case file's folder"),
        "a drive": ("C:/x.png", "leaves the case file's folder"),
        "an address": ("https://example.org/x.png", "is a URL"),
        "data in the path": ("data:image/png;base64", "is a URL"),
        "no path": (" ", "is empty"),
        "another name": ("gone.png", "no such file"),
        "a long name": ("x" * 300 + ".png", "cannot be read"),
    }
    for label, (new, says) in changes.items():
        yield Fault(name, make, label, lambda f, n=new: swap(f / file, old, n), says, file)


def deck_faults(name, make, file):
    """What can be wrong with the user's pictures, of which there is then just one."""
    one = "pictures/000000000000.jpg"

    def alone(change):
        def apply(folder):
            shutil.rmtree(folder / "pictures")
            deck(folder, 1)
            change(folder)

        return apply

    for fault in picture_faults(name, make, one, file):
        if fault.label != "no picture":  # a picture that is not there is not in the deck
            yield Fault(name, make, fault.label, alone(fault.change), fault.says, file)
    for label, change, says in (
        ("no folder", lambda f: shutil.rmtree(f / "pictures"), "has no folder pictures"),
        ("no pictures", lambda f: (f / one).unlink(), "has no pictures"),
        ("other files", lambda f: (f / one).rename(f / "pictures/a.tif"), "has no pictures"),
        ("a strange name", lambda f: (f / one).rename(f / "pictures/a\n\x1b.jpg"), "unprintable characters"),
    ):
        yield Fault(name, make, label, alone(change), says, "pictures")


def said_in_one_sentence(fault, folder, monkeypatch):
    """Make a good copy, spoil it, and check the error."""
    fault.make(folder)
    monkeypatch.setattr(strict, "MAX_BYTES", SMALL)
    fault.change(folder)
    with pytest.raises(LayeralignError, match=fault.says) as error:
        read(fault.name, folder)
    said = str(error.value)
    assert fault.file in said
    assert str(folder) in said
    assert said.isprintable()  # and so without a line break
    assert len(said) < 1500
    assert "wrapped" not in said and "placeholder request" not in said  # prompts are not repeated
