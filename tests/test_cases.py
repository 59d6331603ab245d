import contextlib
import csv
import errno
import json
import os
import signal
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from layeralign import LayeralignError
from layeralign._util import files as atomic_files
from layeralign._util import text
from layeralign._util.text import LONGEST_LINE, redacted
from layeralign.cases import files, pictures
from layeralign.cases.case import Case, normalise_category
from layeralign.cases.readers.reader import read as read_benchmark
from layeralign.cli import main
from layeralign.testbed import cases as testbed
from published import MAKE

GOOD = {"id": "a", "prompt": "hello", "kind": "benign"}


def test_a_good_file(case_file):
    cases = files.read(case_file)
    assert [c.id for c in cases] == ["h1", "h2", "b1", "b2", "v1", "t1"]
    assert cases[0].picture == cases[1].picture
    assert cases[5].picture is None
    assert cases[3].borderline and not cases[2].borderline
    assert cases[4].reference == "no."
    assert cases[2].picture.open().mode == "RGB"
    assert [c.id for c in files.read(case_file, limit=2)] == ["h1", "h2"]


def test_every_field_changes_the_hash(case_file):
    base = files.read(case_file)[0]
    from dataclasses import replace

    changed = [
        replace(base, id="x"), replace(base, prompt="x"), replace(base, kind="benign"), replace(base, picture=None),
        replace(base, category="x"), replace(base, reference="x"), replace(base, facts={"x": 1}),
    ]  # fmt: skip
    assert len({base.sha256, *(c.sha256 for c in changed)}) == 8


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", r"cases\.jsonl:2: is not valid JSON"),
        ("[1]", "expected a JSON object, found list"),
        ({"prompt": "x", "kind": "benign"}, "field 'id' is missing"),
        ({"id": "b", "kind": "benign"}, "field 'prompt' is missing"),
        ({**GOOD, "id": "b", "\ud800": 1}, "a field's name has a lone surrogate"),
        ({"id": "b", "prompt": "x"}, "field 'kind' is missing"),
        ({**GOOD, "id": "b", "kind": "evil"}, "'evil'; expected harmful, benign, vqa"),
        ({**GOOD, "id": 3}, "field 'id' is 3; expected text"),
        ({**GOOD, "id": "b", "image": 3}, "field 'image' is 3; expected text"),
        ({**GOOD, "id": "b", "prompt": "  "}, "field 'prompt' is empty"),
        (GOOD, "'a' is already used in .*cases.jsonl:1"),
        ({**GOOD, "id": "b", "image": "gone.png"}, "no such file"),
        ({**GOOD, "id": "b", "image": ""}, "field 'image' is empty"),
        ({**GOOD, "id": "b", "image": "../x.png"}, r"without '\.\.'"),
        ({**GOOD, "id": "b", "image": "/etc/hostname"}, "leaves the case file's folder"),
        ({**GOOD, "id": "b", "image": "C:\\x.png"}, "leaves the case file's folder"),
        ({**GOOD, "id": "b", "image": "https://x/y.png"}, "is a URL"),
        ({**GOOD, "id": "b", "image": "file:///etc/passwd"}, "is a URL"),
        ({**GOOD, "id": "b", "image": "link.png"}, "is a link that leaves"),
        ({**GOOD, "id": "b", "image": "linked/p.png"}, "is a link that leaves"),
        ({**GOOD, "id": "b", "image": "text.png"}, "is not a picture"),
        ({**GOOD, "id": "b", "image": "half.png"}, "truncated or corrupt"),
        ({**GOOD, "id": "b", "image": "half.jpg"}, "truncated or corrupt"),
        ({**GOOD, "id": "b", "image": "bomb.png"}, "100000×100000 pixels|too many pixels"),
        ({**GOOD, "id": "b", "image": "."}, "no such file"),
        ({**GOOD, "id": "b", "image": "x" * 300 + ".png"}, "cannot be read"),
        ({**GOOD, "id": "b", "image": "deep.png"}, "more than 8 bits"),
        ('{"id": "b", "kind": "benign", "prompt": "\\ud800"}', "lone surrogate"),
        ('{"id": "\\udfff", "kind": "benign", "prompt": "x"}', "lone surrogate"),
        ("[" * 100_000, "is not valid JSON"),
        ({**GOOD, "id": "b", "answers": "net"}, "field 'answers' is"),
        ({**GOOD, "id": "b", "answers": []}, "field 'answers' is"),
        ({**GOOD, "id": "b", "answers": ["net", 3]}, "field 'answers' is"),
        ('{"id": "b", "kind": "vqa", "prompt": "x", "answers": ["\\udfff"]}', "lone surrogate"),
        ('{"id": "b", "prompt": "x", "kind": "harmful", "kind": "benign"}', "field 'kind' occurs twice"),
        ('{"id": "b", "prompt": "x", "prompt": "x", "kind": "benign"}', "field 'prompt' occurs twice"),
        ({**GOOD, "id": "b", "kind": "Harmful"}, "'Harmful'; expected harmful, benign, vqa"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, line, says):
    folder = tmp_path / "cases"
    folder.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (4, 4)).save(outside / "p.png")
    (folder / "link.png").symlink_to(outside / "p.png")
    (folder / "linked").symlink_to(outside)
    (folder / "text.png").write_text("not a picture")
    noise = Image.frombytes("RGB", (64, 64), os.urandom(64 * 64 * 3))
    for name in ("half.png", "half.jpg"):
        noise.save(folder / name)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    (folder / "bomb.png").write_bytes(bomb())
    Image.new("I;16", (4, 4)).save(folder / "deep.png")
    file = folder / "cases.jsonl"
    text = line if isinstance(line, str) else json.dumps(line)
    file.write_text(json.dumps(GOOD) + "\n" + text + "\n")
    with pytest.raises(LayeralignError, match=says) as error:
        files.read(file)
    assert "cases.jsonl:2" in str(error.value)
    assert "\n" not in str(error.value)


def bomb() -> bytes:
    """A PNG that says it has 10^10 pixels; decoding it would need tens of gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"0"))
        + chunk(b"IEND", b"")
    )


def test_a_picture_just_over_the_limit_is_refused_before_decoding(tmp_path, monkeypatch):
    Image.new("RGB", (11, 10)).save(tmp_path / "p.png")
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100)
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(LayeralignError, match="11×10 pixels"):
        pictures.check(tmp_path, "p.png", "here")


def test_a_file_with_an_emoji_is_decoded_line_by_line(tmp_path, monkeypatch):
    """At once it takes four bytes for each character: a file of 250 MB took 1.2 GB, and 1.9 GB in one line."""
    file = tmp_path / "c.jsonl"
    file.write_text('{"id": "a", "prompt": "\U0001f600", "kind": "benign"}\n' + (" " * 2**20 + "\n") * 64)
    monkeypatch.setattr(files, "MAX_BYTES", 65 * 2**20)
    tracemalloc.start()
    assert files.read(file)[0].prompt == "\U0001f600"
    assert tracemalloc.get_traced_memory()[1] < 1.5 * file.stat().st_size
    tracemalloc.stop()
    file.write_text(json.dumps(GOOD | {"prompt": "a" * LONGEST_LINE}))
    with pytest.raises(LayeralignError, match=r"c\.jsonl:1: is longer than 16,777,216 characters, the limit"):
        files.read(file)


@pytest.mark.parametrize("size", [(1, 1001), (40_001, 40)])
def test_a_line_of_pixels_is_refused(tmp_path, size):
    """Scaled to a shorter side of 336 pixels, one of 400,000 pixels has 45 billion."""
    Image.new("L", size).save(tmp_path / "p.png")
    with pytest.raises(LayeralignError, match="one side may be at most 1000 times the other"):
        pictures.check(tmp_path, "p.png", "here")


def test_a_picture_that_changed_after_the_check_is_not_shown(case_file):
    picture = files.read(case_file)[0].picture
    Image.new("RGB", (9, 9)).save(picture.path)
    with pytest.raises(LayeralignError, match="has changed since"):
        picture.open()


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\x00"])
def test_an_empty_or_binary_file(tmp_path, content):
    file = tmp_path / "c.jsonl"
    file.write_bytes(content)
    with pytest.raises(LayeralignError, match=r"c\.jsonl: (has no cases|cannot be read)"):
        files.read(file)


@pytest.mark.parametrize("part", ["\n", "[", "{", ","])
def test_a_case_file_of_too_many_parts_is_refused_before_they_fill_the_memory(tmp_path, part, monkeypatch):
    monkeypatch.setitem(text._MOST_PARTS, part, 1000)
    (tmp_path / "c.jsonl").write_text('{"id": "a", "prompt": "x", "kind": "benign"}\n[' + part * 1001 + "]")
    with pytest.raises(LayeralignError, match="has more than 1,000"):
        files.read(tmp_path / "c.jsonl")


def test_unicode_line_separators_do_not_split_a_case(tmp_path):
    file = tmp_path / "c.jsonl"
    file.write_text(json.dumps({**GOOD, "prompt": "a\u2028b\x85c"}, ensure_ascii=False), encoding="utf-8")
    assert files.read(file)[0].prompt == "a\u2028b\x85c"


@given(st.text(), st.sampled_from(["harmful", "benign", "vqa"]), st.text())
def test_what_is_written_is_read(tmp_path_factory, prompt, kind, category):
    if not prompt.strip():
        return
    file = tmp_path_factory.mktemp("cases") / "c.jsonl"
    file.write_text(json.dumps({"id": "1", "prompt": prompt, "kind": kind, "category": category}))
    (case,) = files.read(file)
    assert (case.prompt, case.kind, case.category) == (prompt, kind, normalise_category(category))


@given(st.binary(max_size=200))
def test_any_bytes_are_cases_or_one_error(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("cases") / "c.jsonl"
    file.write_bytes(content)
    with contextlib.suppress(LayeralignError):
        files.read(file)


# ---- cases that are written


@pytest.mark.parametrize("name", MAKE)
def test_what_was_drawn_and_paired_is_written_and_read_again(tmp_path, name):
    (tmp_path / "copy").mkdir()
    MAKE[name](tmp_path / "copy")
    out = tmp_path / "kept" / "drawn.jsonl"
    out.parent.mkdir()
    assert (
        main(["cases", f"{name}:{tmp_path / 'copy'}", "--seed", "3", "--limit", "4", "--out", str(out)]) == 0
    )
    drawn = read_benchmark(name, tmp_path / "copy", limit=4, seed=3)
    again = files.read(out)
    for one, two in zip(drawn, again, strict=True):
        assert (one.id, one.prompt, one.kind, one.category, one.reference) == (
            two.id, two.prompt, two.kind, two.category, two.reference,
        )  # fmt: skip
        assert (one.picture and one.picture.sha256) == (two.picture and two.picture.sha256)
        assert one.facts.get("answers") == two.facts.get("answers")
    made = [file for file in out.parent.rglob("*") if file.is_file()]
    assert len(made) == 1 + len({case.picture.sha256 for case in drawn if case.picture})
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in made)
    (out.parent).rename(tmp_path / "moved")  # the file and its pictures go together
    assert len(files.read(tmp_path / "moved" / "drawn.jsonl")) == len(drawn)


def test_a_case_file_is_written_as_it_was(case_file, tmp_path):
    out = tmp_path / "other.jsonl"
    cases = files.read(case_file)
    files.write(cases, out)
    assert [case.sha256 for case in files.read(out)] == [case.sha256 for case in cases]
    assert len(list((tmp_path / "other.pictures").iterdir())) == 4  # two cases share one


def test_answers_are_a_fact(tmp_path):
    file = tmp_path / "c.jsonl"
    row = {"id": "1", "prompt": "is it red?", "kind": "vqa", "answers": ["yes"] * 9 + ["no"]}
    file.write_text(json.dumps(row) + "\n" + json.dumps({**row, "id": "2", "answers": None}) + "\n")
    with_answers, without = files.read(file)
    assert with_answers.facts == {"answers": ["yes"] * 9 + ["no"]} and without.facts == {}


KILLED = """
import os, signal, sys
from pathlib import Path
from layeralign.cases import files
cases = files.read(Path(sys.argv[1]))
def given():
    yield from cases[:4]
    os.kill(os.getpid(), signal.SIGKILL)
files.write(given(), Path(sys.argv[2]))
"""


def test_the_pictures_of_a_killed_command_are_removed_by_the_next_one(case_file, tmp_path):
    """A hidden folder with copies of pictures of harmful cases stayed for ever."""
    out = tmp_path / "out"
    out.mkdir()
    killed = subprocess.run([sys.executable, "-c", KILLED, str(case_file), str(out / "c.jsonl")], check=False)
    assert killed.returncode == -signal.SIGKILL and len([*out.iterdir()]) == 2
    files.write(files.read(case_file), out / "c.jsonl")
    assert sorted(path.name for path in out.iterdir()) == ["c.jsonl", "c.pictures"]


def test_pictures_do_not_stay_without_their_cases(case_file, tmp_path, monkeypatch):
    """A disk may say at the end that it is full: then the pictures were in place already, and stayed."""

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(atomic_files, "_sync", full)
    with pytest.raises(LayeralignError, match="cannot be written"):
        files.write(files.read(case_file), tmp_path / "out" / "c.jsonl")
    assert not [*(tmp_path / "out").iterdir()]


def test_nothing_is_written_over_and_nothing_is_left_of_a_failure(case_file, tmp_path):
    cases = files.read(case_file)
    (tmp_path / "full.pictures").mkdir()
    for name, says in (("cases.jsonl", "already exists"), ("full.jsonl", r"full\.pictures: already exists"),
                       ("gone/x.jsonl", "does not exist")):  # fmt: skip
        with pytest.raises(LayeralignError, match=says):
            files.write(cases, tmp_path / name)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(LayeralignError, match="its picture is generated, not a file"):
        files.write(testbed.cases("dev", 4), tmp_path / "t.jsonl")
    Image.new("RGB", (9, 9)).save(cases[2].picture.path)
    with pytest.raises(LayeralignError, match="has changed since the cases were read"):
        files.write(cases, tmp_path / "t.jsonl")
    Path(cases[2].picture.path).unlink()
    with pytest.raises(LayeralignError, match=r"can no longer be read \(.*No such file"):
        files.write(cases, tmp_path / "t.jsonl")
    os.mkfifo(cases[2].picture.path)  # is not waited for
    with pytest.raises(LayeralignError, match=r"can no longer be read \(is not a regular file"):
        files.write(cases, tmp_path / "t.jsonl")
    Path(cases[2].picture.path).unlink()
    assert [file for file in before if file.exists()] == sorted(tmp_path.rglob("*"))


# ---- cases that are shown


@given(st.text(max_size=300))
def test_nothing_can_be_read_of_a_redacted_text(text):
    shown = redacted(text)
    assert not any(letter.isalnum() for letter in shown) and shown.isprintable()


def test_a_preview_shows_no_harmful_prompt(tmp_path, capfd):
    assert redacted("how do i smash the bakimo?") == "··· ·· · ····· ··· ······?"
    rows = [
        {"id": "1", "prompt": "how do i smash the bakimo?", "kind": "harmful", "reference": "take a stone"},
        {"id": "2", "prompt": "[red]is it\nred?\x1b[2J", "kind": "vqa", "reference": "yes"},
    ]
    file = tmp_path / "c.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    assert main(["cases", str(file), "--preview", "5"]) == 0
    out = capfd.readouterr().out
    assert "smash" not in out and "stone" not in out and "··· ·· · ····· ··· ······?" in out
    assert "[red]is it red?" in out and "\x1b" not in out
    assert main(["cases", str(file), "--preview", "1"]) == 0
    assert "is it red?" not in capfd.readouterr().out
    for arguments, says in ((["--preview", "0", str(file)], "preview 0"), (["--preview", "1"], "expected layeralign cases NAME"),
                            (["--out", str(tmp_path / "o.jsonl")], "expected layeralign cases NAME")):  # fmt: skip
        assert main(["cases", *arguments]) == 1
        assert says in capfd.readouterr().err


def test_a_field_that_nobody_reads_is_an_error_and_not_a_case_without_its_picture(tmp_path, capsys):
    file = tmp_path / "c.jsonl"
    row = {"id": "1", "prompt": "is it red?", "kind": "vqa", "_source": "mine"}
    file.write_text(json.dumps(row) + "\n" + json.dumps({**row, "id": "2", "picture": "a.png"}) + "\n")
    with pytest.raises(
        LayeralignError,
        match=r"c.jsonl:2: field 'picture' is unknown; expected id, .*image.* start it with _",
    ):
        files.read(file)
    file.write_text(json.dumps(row) + "\n")
    assert files.read(file)[0].facts == {}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("text,type\nhello,ok\n", r"c.csv:2: field 'text' is unknown; expected id, prompt"),
        ("id,prompt,kind\na,hi, there,benign\n", "c.csv:2: has more cells than the header"),
        ("id,prompt,kind\na,hi,benign\na,ho,benign\n", "c.csv:3: id 'a' is already used in .*c.csv:2"),
        ("id,prompt,kind,id\na,hi,benign,b\n", "c.csv:1: column 'id' appears twice"),
        ("id,prompt,kind\n", "has no cases; expected a header and a row per case"),
        (
            "id,prompt,kind," + ",".join(f"x{n}" for n in range(1000)) + "\na,hi,benign\n",
            "has 1,003 columns; the limit is",
        ),
        ('id,prompt,kind\na,"hi,benign\n', "is not valid CSV"),
        ("id,prompt,kind,image\na,hi,benign,gone.png\n", r"c.csv:2: image 'gone.png': no such file"),
    ],
)
def test_what_is_wrong_in_a_table_is_named_with_its_line(tmp_path, table, says):
    (tmp_path / "c.csv").write_text(table)
    with pytest.raises(LayeralignError, match=says):
        files.read(tmp_path / "c.csv")


def test_a_csv_table_is_a_case_file(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    (tmp_path / "c.csv").write_text(
        'id,prompt,kind,category,image,_note\na,"hi, there",benign,borderline,a.png,x\n\nb,"two\nlines",harmful,,,\n'
    )
    one, other = files.read(tmp_path / "c.csv")
    assert (one.prompt, one.category, one.picture.size) == ("hi, there", "borderline", (8, 8))
    assert (other.prompt, other.kind, other.category, other.picture) == ("two\nlines", "harmful", "", None)


def test_a_csv_of_any_texts_comes_back(tmp_path_factory):
    @given(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), min_size=1),
            min_size=1,
        )
    )
    def check(texts):
        file = tmp_path_factory.mktemp("csv") / "c.csv"
        kept = [text for text in texts if text.strip()]
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["id", "prompt", "kind"])
            writer.writerows([str(at), text, "harmful"] for at, text in enumerate(kept))
        if kept:
            assert [case.prompt for case in files.read(file)] == kept

    check()


def test_what_cases_cannot_show_is_said(tmp_path, capsys):
    file = tmp_path / "c.jsonl"
    file.write_text(json.dumps({"id": "1", "prompt": "hi", "kind": "benign"}) + "\n")
    assert main(["cases", str(file)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "note: no case has a picture" in told and "none of the 1 benign cases" in told
    file.write_text(
        json.dumps({"id": "1", "prompt": "hi", "kind": "benign", "category": "borderline"}) + "\n"
    )
    assert main(["cases", str(file)]) == 0
    assert "over-refusal" not in capsys.readouterr().out


# ---- categories, as people spell them


def with_categories(tmp_path, *categories, kind="benign"):
    file = tmp_path / "c.jsonl"
    rows = [{"id": str(n), "prompt": "hi", "kind": kind, "category": one} for n, one in enumerate(categories)]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return file


@pytest.mark.parametrize(
    ("category", "meant"),
    [("borderline", "borderline"), ("Borderline", "borderline"), (" borderline", "borderline"),
     ("BORDERLINE\t", "borderline"), ("border-line", "borderline"), ("Border Line", "borderline"),
     ("border_line", "borderline"), ("\u200bborderline", "borderline"), ("authorised", "authorised"),
     ("Authorised ", "authorised"),
     ("authorized", "authorised"), ("AUTHORIZED", "authorised")],
)  # fmt: skip
def test_benign_cases_that_look_harmful_are_known_however_they_are_spelt(tmp_path, category, meant):
    (case,) = files.read(with_categories(tmp_path, category))
    assert case.category == meant and case.borderline
    made = Case("a", "hi", "benign", category=category)
    assert made.category == meant and made.borderline


@pytest.mark.parametrize("category", ["", "  ", "borderline-ish", "privacy", "not borderline"])
def test_other_categories_stay_as_they_are(tmp_path, category):
    (case,) = files.read(with_categories(tmp_path, category))
    assert case.category == category.strip() and not case.borderline


@pytest.mark.parametrize(
    ("one", "other"),
    [("Privacy", "privacy"), ("hate speech", "hate-speech"), ("hate_speech", "Hate Speech"), ("HateSpeech", "hate speech"),
     ("Borderline", "borderline")],
)  # fmt: skip
def test_two_spellings_of_one_category_are_refused_with_both_lines(tmp_path, one, other):
    file = with_categories(tmp_path, one, "violence", other)
    says = rf"c\.jsonl:3: field 'category' is '{other}', but .*c\.jsonl:1 spells it '{one}'"
    for limit in (None, 1):
        with pytest.raises(LayeralignError, match=says):
            files.read(file, limit)


def test_one_spelling_is_no_two(tmp_path):
    file = with_categories(tmp_path, "a b", " a b ", "", "  ", "authorized", "authorised", "ab2", "a.b")
    found = [case.category for case in files.read(file)]
    assert found == ["a b", "a b", "", "", "authorised", "authorised", "ab2", "a.b"]
