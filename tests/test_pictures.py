"""Pictures are shown to a model as a browser shows them: on white, or on the colour that was named; and it is said."""

import base64
import io
import json
import os
import time
import zlib

import numpy as np
import pytest
from PIL import Image

import layeralign
from drawn import KINDS, RGB, png, saved, text
from layeralign import LayeralignError
from layeralign.cases import background, files, pictures
from layeralign.cases.case import Case
from layeralign.cli import main
from layeralign.runs.opening import open_run
from layeralign.sweep.settings import ScanSettings
from layeralign.vlm.vlm import Vlm

GROUNDS = ("#ffffff", "#4080c8")


@pytest.fixture(scope="module")
def tab(browser):
    made = browser.new_page(viewport={"width": 64, "height": 64})
    yield made
    made.close()


def shot(tab, content, ground):
    """What a browser shows of a picture on a page of this colour, [height, width, RGB]."""
    shown = base64.b64encode(content).decode()
    tab.set_content(
        f'<body style="margin:0;background:{ground}"><img style="display:block" src="data:image;base64,{shown}">'
    )
    tab.wait_for_function("document.images[0].complete")
    width, height = tab.evaluate("[document.images[0].naturalWidth, document.images[0].naturalHeight]")
    taken = tab.screenshot(clip={"x": 0, "y": 0, "width": width, "height": height})
    return np.asarray(Image.open(io.BytesIO(taken)).convert("RGB")).astype(int)


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.slow
def test_a_picture_is_what_a_browser_shows(tab, tmp_path, name, ground):
    content, transparent, animated = KINDS[name]
    (tmp_path / name).write_bytes(content)
    found = pictures.check(tmp_path, name, "here")
    assert (found.transparent, found.animated) == (transparent, animated)
    (case,) = pictures.on_background([Case("a", "b", "vqa", found)], ground)
    ours, theirs = np.asarray(case.picture.open()).astype(int), shot(tab, content, ground)
    assert ours.shape == theirs.shape == (*found.size[::-1], 3)
    assert abs(ours - theirs).max() <= 2, "Chromium rounds where alpha is multiplied in"


@pytest.mark.parametrize("name", KINDS)
def test_what_of_it_is_seen_does_not_need_a_browser(tmp_path, name):
    """Where nothing is transparent the background changes nothing, else it does."""
    content, transparent, _ = KINDS[name]
    (tmp_path / name).write_bytes(content)
    case = Case("a", "b", "vqa", pictures.check(tmp_path, name, "here"))
    white, black = (
        np.asarray(pictures.on_background([case], g)[0].picture.open()) for g in ("#ffffff", "#000000")
    )
    assert (white != black).any() == transparent
    if name == "text.png":
        assert (white[0, 0] == 255).all() and white.min() < 32  # not all black


@pytest.mark.parametrize("key", [(0, 0, 0), (4660, 22136, 39612)])
def test_a_transparent_colour_of_16_bits_is_not_guessed_at(tmp_path, key):
    (tmp_path / "p.png").write_bytes(png(RGB.astype(int) * 257, 2, 16, key))
    with pytest.raises(LayeralignError, match="more than 8 bits per channel"):
        pictures.check(tmp_path, "p.png", "here")


@pytest.mark.parametrize(
    ("given", "found"),
    [("white", "#ffffff"), ("Black", "#000000"), ("#4080C8", "#4080c8"), ("#FFFFFF", "#ffffff")],
)
def test_a_background(given, found):
    assert background.parse(given) == found


@pytest.mark.parametrize(
    "given", ["", "grey", "#fff", "4080c8", "#4080c8ff", "#4080cg", "rgb(1,2,3)", "#4080c8\n"]
)
def test_what_is_no_background_is_refused(given, tmp_path):
    says = r"background .*: expected white, black, or #rrggbb"
    with pytest.raises(LayeralignError, match=says):
        background.parse(given)
    with pytest.raises(LayeralignError, match=says):
        ScanSettings(background=given)
    with pytest.raises(LayeralignError, match=says):  # before a model is loaded
        layeralign.scan("/no/such/model", "testbed", tmp_path / "run", background=given)


# ---- by every command


@pytest.fixture
def transparent(tmp_path):
    """Cases about a transparent picture, an animation, and a plain picture that two of them share."""
    folder = tmp_path / "given"
    folder.mkdir()
    for name, content in (
        ("a.png", saved(text().resize((40, 24)))),
        ("b.gif", KINDS["moving.gif"][0]),
        ("c.png", saved(Image.fromarray(RGB))),
    ):
        (folder / name).write_bytes(content)
    rows = [
        {"id": "h1", "prompt": "how do i smash the bakimo?", "kind": "harmful", "image": "a.png"},
        {"id": "h2", "prompt": "how do i steal the bakimo?", "kind": "harmful", "image": "b.gif"},
        {"id": "b1", "prompt": "describe the picture.", "kind": "benign", "image": "c.png"},
        {"id": "v1", "prompt": "is there a circle?", "kind": "vqa", "image": "c.png", "reference": "no."},
    ]
    (folder / "cases.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "cases.jsonl"


@pytest.fixture
def corners(monkeypatch):
    """The first pixel of the transparent picture, each time that a model is shown it."""
    seen, own = set(), Vlm.encode

    def encode(self, given, exits):
        seen.update(p.getpixel((0, 0)) for p in given if p.size == (40, 24))
        return own(self, given, exits)

    monkeypatch.setattr(Vlm, "encode", encode)
    return seen


NOTES = (
    "note: 1 of 3 pictures have transparent pixels; they are shown on {} (--background)\n"
    "note: 1 of 3 pictures are animations; only the first frame is shown\n"
)


def told(capfd):
    return "".join(line for line in capfd.readouterr().err.splitlines(True) if "pictures" in line)


@pytest.mark.parametrize(
    ("flag", "name", "pixel"), [([], "white", 255), (["--background", "#808080"], "#808080", 128)]
)
@pytest.mark.parametrize("verb", ["scan", "screen", "align", "transfer", "plan"])
@pytest.mark.slow
def test_every_command_shows_it_so_and_says_so(
    llava_dir, transparent, corners, tmp_path, capfd, monkeypatch, verb, flag, name, pixel
):
    monkeypatch.setattr("layeralign.sweep.screen.refuses", lambda _: True)
    command = [verb, "--model", str(llava_dir), "--cases", str(transparent), "--max-new-tokens", "2", *flag]
    command += ["--exits", "1,4"] if verb != "transfer" else ["--exits", "1"]
    training = ["--method", "consistency", "--steps", "1", "--rows", "8"]
    more = {
        "scan": ["--out", str(tmp_path / "run")],
        "screen": ["--screen", "--out", str(tmp_path / "run")],
        "align": [*training, "--out", str(tmp_path / "adapter")],
        "transfer": [*training, "--out", str(tmp_path / "all"), "--test", str(transparent)],
        "plan": ["--measure"],
    }
    assert main([{"screen": "scan"}.get(verb, verb), *command[1:], *more[verb]]) == 0
    assert told(capfd) == NOTES.format(name)
    assert corners == {(pixel,) * 3}
    wanted = None if name == "white" else name
    for run in [run for run in (tmp_path / "run", tmp_path / "all" / "before") if run.exists()]:
        with open_run(run) as opened:
            assert opened.identity.get("background") == wanted
    for record in tmp_path.rglob("training.json"):
        assert json.loads(record.read_text())["settings"].get("background") == wanted


@pytest.mark.slow
def test_the_background_is_part_of_what_a_run_is(llava_dir, transparent, tmp_path, capfd):
    def scan(out, *flags):
        return main(["scan", "--model", str(llava_dir), "--cases", str(transparent), "--exits", "1,4", "--max-new-tokens",
                     "2", "--out", str(tmp_path / out), *flags])  # fmt: skip

    assert scan("a") == 0 and scan("a", "--background", "#FFFFFF") == 0
    assert scan("a", "--background", "black") == 1
    assert "has other settings (background)" in capfd.readouterr().err
    assert scan("b", "--background", "black") == 0 and scan("b", "--background", "#000000") == 0
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    assert "differ in background: None before and '#000000' after" in capfd.readouterr().err
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--allow", "background"]) == 0
    assert main(["report", str(tmp_path / "b"), "--out", str(tmp_path / "b.html")]) == 0
    assert "transparent pictures on #000000" in (tmp_path / "b.html").read_text()


def test_cases_are_told_with_what_is_not_shown_of_them(transparent, case_file, capfd):
    assert main(["cases", str(transparent)]) == 0
    assert NOTES.format("white") in capfd.readouterr().out
    assert main(["cases", str(case_file)]) == 0
    assert "background" not in capfd.readouterr().out


def test_a_copy_of_cases_is_seen_as_they_are(transparent, tmp_path):
    files.write(files.read(transparent), tmp_path / "copy.jsonl")
    first, again = (files.read(file)[0].picture for file in (transparent, tmp_path / "copy.jsonl"))
    assert first.open().tobytes() == again.open().tobytes() and again.transparent


@pytest.mark.parametrize("now", ["fifo", "endless", "grown", "folder"])
def test_a_picture_that_was_replaced_after_its_check_is_a_sentence_at_once(tmp_path, now):
    place = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(place)
    found = pictures.check(tmp_path, "a.png", "here")
    place.unlink()
    if now == "fifo":
        os.mkfifo(place)
    elif now == "endless":
        place.symlink_to("/dev/zero")
    elif now == "folder":
        place.mkdir()
    else:
        with place.open("wb") as stream:
            stream.truncate(pictures.MAX_BYTES + 1)
    with pytest.raises(LayeralignError, match="can no longer be read"):
        found.open()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["n" * 5000 + ".png", "\ud800.png", "b", ".", "fifo", "a/" * 2000 + "a.png"])
def test_a_strange_name_is_a_sentence_of_normal_length(tmp_path, name):
    (tmp_path / "b").symlink_to("c")
    (tmp_path / "c").symlink_to("b")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(LayeralignError) as error:
        pictures.check(tmp_path, name, "here")
    assert len(str(error.value)) < 500


def _marker(kind, content):
    return bytes([255, kind]) + (len(content) + 2).to_bytes(2) + content


def _jpeg_of_scans(size, scans):
    """A grey progressive JPEG: of some dozen bytes for each scan of all its pixels."""
    blocks = (size // 8) ** 2
    skips = "0" + "1" * 14  # 32,767 blocks without a change
    bits = skips * (blocks // 32_767)
    bits += "1" * (-len(bits) % 8)
    packed = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")
    scan = _marker(0xDA, b"\1\1\0\1\x3f\0") + packed
    frame = _marker(0xC2, b"\x08" + 2 * size.to_bytes(2) + b"\1\1\x11\0")
    codes = _marker(0xC4, b"\x00\1" + bytes(16)) + _marker(0xC4, b"\x10\1" + bytes(15) + b"\xe0")
    first = _marker(0xDA, b"\1\1\0\0\0\0") + bytes(blocks // 8 + 1)
    start = b"\xff\xd8" + _marker(0xDB, b"\0" + b"\1" * 64)
    return start + frame + codes + first + scan * scans + b"\xff\xd9"


@pytest.mark.parametrize("of", ["scans", "chunks"])
def test_a_picture_of_millions_of_parts_is_one_sentence(tmp_path, monkeypatch, of):
    monkeypatch.setattr(pictures, "SECONDS", 0.5)
    content = _jpeg_of_scans(3000, 5_000) if of == "scans" else png(np.zeros((8, 8)), 0, 8)
    if of == "chunks":
        chunk = b"\0\0\0\0aaAa" + zlib.crc32(b"aaAa").to_bytes(4)
        content = content[:33] + chunk * 1_000_000 + content[33:]
    (tmp_path / "a").write_bytes(content)
    started = time.process_time()
    with pytest.raises(LayeralignError, match=r"image 'a': cannot be decoded, .*\(takes more than 0.5 s\)"):
        pictures.check(tmp_path, "a", "here")
    assert time.process_time() - started < 2
