"""Public benchmarks by name, from servers on this machine that stand for GitHub, the hub and S3."""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import huggingface_hub
import pytest

from layeralign import LayeralignError, benchmarks
from layeralign.cases import cache, fetching, origins
from layeralign.cases.readers import vqa
from layeralign.cases.readers.reader import BENCHMARKS
from layeralign.cases.readers.shared import packed
from layeralign.cli import main
from published import BY_HAND, PUBLISH, jailbreak_rows, make_pairs, picture, write_csv

PLACES = {"GitHub": "xstest", "hub": "redteam-2k", "S3": "vqa-v2"}
"""A benchmark of each kind of place."""
DOCS = Path(__file__).parent.parent / "docs" / "cases.md"


# ---- the places


class Site(ThreadingHTTPServer):
    """Gives `files`, by their path; `faults` of a path come first, one a request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.asked = {}, {}, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_):
        pass  # a client that is gone


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(self.path)
        self.server.asked.append((self.command, path))
        faults = self.server.faults.get(path)
        if faults:
            return faults.pop(0)(self)
        if path not in self.server.files:
            return self.say(404, b"", [("X-Error-Code", "EntryNotFound")] if "/resolve/" in path else [])
        return self.give(self.server.files[path])

    def give(self, content):
        """The file, with what the hub's documented headers say of it."""
        headers = []
        if "/resolve/" in self.path:
            revision = self.path.partition("/resolve/")[2].partition("/")[0]
            headers = [("X-Repo-Commit", revision), ("ETag", '"an-etag"'), ("Accept-Ranges", "bytes")]
        start = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start:
            first = int(start[1])
            headers.append(("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}"))
            return self.say(206, content[first:], headers)
        return self.say(200, content, headers)

    def say(self, status, content=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def answer(status, *headers):
    return lambda handler: handler.say(status, b"", headers)


def gated(handler):
    handler.say(403, b"", [("X-Error-Code", "GatedRepo")])


def cut(handler):
    """The first half of the file, then the connection ends; a HEAD is answered well."""
    content = handler.server.files[unquote(handler.path)]
    if handler.command == "HEAD":
        return handler.give(content)
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])
    handler.close_connection = True


def drop(handler):
    handler.close_connection = True
    handler.connection.close()


def moved(handler):
    handler.say(302, b"", [("Location", "/elsewhere" + handler.path)])


@contextmanager
def serving():
    site = Site()
    threading.Thread(target=site.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield site
    finally:
        site.shutdown()
        site.server_close()


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.HOME, str(tmp_path / "cache"))
    monkeypatch.setattr(origins, "SLOWEST", 0.01)
    monkeypatch.setattr(packed, "excess", lambda _: "")
    for name in ("beavertails-v", "mmmu"):  # three of many files, and no child process for each
        for path in list(BENCHMARKS[name].texts)[3:]:
            monkeypatch.delitem(BENCHMARKS[name].texts, path)
    with serving() as site:
        monkeypatch.setattr(origins, "GITHUB", site.url)
        monkeypatch.setattr(origins, "S3", site.url)
        constants = huggingface_hub.constants  # as HF_ENDPOINT does when it is set
        resolve = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, site.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", resolve)
        monkeypatch.setattr(constants, "ENDPOINT", site.url)
        yield site


def at(name, path):
    benchmark = BENCHMARKS[name]
    return unquote(urlsplit(benchmark.origin.url(benchmark.revision, path)).path)


def publish(site, name, folder, *, by_hand=True):
    """Make the authors' repository, put it on the site, and by hand what they do not give away."""
    PUBLISH[name](folder)
    benchmark = BENCHMARKS[name]
    for path in benchmark.texts:
        put_on(site, name, path, (folder / path).read_bytes())
    for path in benchmark.pictures(folder, None, 0) if benchmark.pictures else ():
        put_on(site, name, path, (folder / path).read_bytes())
    if by_hand and name in BY_HAND:
        shutil.copytree(folder / BY_HAND[name], kept(name) / BY_HAND[name])
    return benchmark


def put_on(site, name, path, content):
    if isinstance(BENCHMARKS[name].origin, origins.Archives):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(path, content)
        content = packed.getvalue()
    site.files[at(name, path)] = content


def kept(name):
    return fetching.folder(BENCHMARKS[name])


def text_of(name):
    return next(iter(BENCHMARKS[name].texts))


def here(name):
    return sorted(str(file.relative_to(kept(name))) for file in kept(name).rglob("*") if file.is_file())


def offline(monkeypatch):
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("the network was used"))


# ---- what is fetched


@pytest.mark.parametrize("name", PUBLISH)
def test_it_is_fetched_by_name(site, tmp_path, capfd, name):
    benchmark = publish(site, name, tmp_path / "repository")
    cases = benchmarks.cases(name)
    own = benchmarks.cases(f"{name}:{tmp_path / 'repository'}")
    assert cases == [_moved(case, tmp_path / "repository", kept(name)) for case in own]
    said = capfd.readouterr().err
    assert f"licence {benchmark.licence}; from {benchmark.source}" in said
    assert (benchmark.revision or "no revision published") in said and str(kept(name)) in said
    for path in benchmark.texts:
        record = json.loads((kept(name) / f"{path}.fetched").read_text())
        assert record["revision"] == benchmark.revision and record["licence"] == benchmark.licence
        assert record["url"].startswith(site.url) and len(record["sha256"]) == 64
    assert not [file for file in here(name) if ".draft" in file]


def _moved(case, before, after):
    if case.picture is None or "/unpacked/" in case.picture.path:
        return case
    path = Path(case.picture.path).relative_to(before.resolve())
    return replace(case, picture=replace(case.picture, path=str(after.resolve() / path)))


@pytest.mark.parametrize("name", PUBLISH)
def test_it_is_read_offline_once_it_was_fetched(site, tmp_path, monkeypatch, capfd, name):
    publish(site, name, tmp_path / "repository")
    first = benchmarks.cases(name)
    capfd.readouterr()
    with monkeypatch.context() as patched:
        offline(patched)
        assert benchmarks.cases(name) == first
    assert "licence" not in capfd.readouterr().err


@pytest.mark.parametrize("name", PUBLISH)
def test_a_text_that_changed_in_the_cache_is_refused(site, tmp_path, name):
    publish(site, name, tmp_path / "repository")
    first = benchmarks.cases(name)
    file = kept(name) / text_of(name)
    file.write_bytes(file.read_bytes() + b"\n")
    asked = len(site.asked)
    with pytest.raises(LayeralignError, match=r"has changed since its first download .*; remove it") as error:
        benchmarks.cases(name)
    assert str(file) in str(error.value) and len(site.asked) == asked
    file.unlink()
    assert benchmarks.cases(name) == first


@pytest.mark.parametrize("name", PUBLISH)
@pytest.mark.slow
def test_a_text_that_changed_upstream_is_refused(site, tmp_path, name):
    publish(site, name, tmp_path / "repository")
    benchmarks.cases(name)
    path = text_of(name)
    (kept(name) / path).unlink()
    before = here(name)
    content = (tmp_path / "repository" / path).read_bytes()
    changed = content.replace(b"placeholder", b"other") if path.endswith(".csv") else content + b"\n"
    put_on(site, name, path, changed)
    with pytest.raises(LayeralignError, match=r"differs from the first download") as error:
        benchmarks.cases(name)
    assert here(name) == before  # nothing was kept
    record = kept(name) / f"{path}.fetched"
    assert str(record) in str(error.value)
    record.unlink()
    if not path.endswith((".gz", ".parquet")):
        assert benchmarks.cases(name)


def test_a_picture_is_held_to_what_it_was(site, tmp_path):
    publish(site, "mossbench", tmp_path / "repository")
    first = benchmarks.cases("mossbench")
    file = kept("mossbench") / "data/images/2.png"
    picture(file, 99)
    with pytest.raises(LayeralignError, match=r"2\.png: has changed since its first download"):
        benchmarks.cases("mossbench")
    file.unlink()
    assert benchmarks.cases("mossbench") == first


def test_only_the_pictures_of_the_wanted_cases_are_fetched(site, tmp_path):
    publish(site, "mossbench", tmp_path / "repository")
    assert len(benchmarks.cases("mossbench", limit=2)) == 2
    assert [path for _, path in site.asked if path.endswith("png")] == [
        at("mossbench", f"data/images/{number}.png") for number in (1, 2)
    ]
    benchmarks.cases("mossbench")
    assert site.asked[3:] == [("GET", at("mossbench", "data/images/3.png"))]


def test_benchmarks_of_one_place_share_its_pictures(site, tmp_path):
    publish(site, "jailbreakv-28k", tmp_path / "repository")
    publish(site, "jailbreakv-mini", tmp_path / "repository")
    benchmarks.cases("jailbreakv-28k")
    site.asked.clear()
    benchmarks.cases("jailbreakv-mini")
    assert {path for _, path in site.asked} == {at("jailbreakv-mini", text_of("jailbreakv-mini"))}


# ---- what has to be had by hand


@pytest.mark.parametrize(("name", "says"), [
    ("advbench", r"put harmless pictures, or a link.*val2017\.zip"),
    ("harmbench", r"put harmless pictures, or a link.*val2017\.zip"),
    ("mm-safetybench", r"download MM-SafetyBench\(imgs\)\.zip by hand from https://drive.*to data/imgs"),
    ("vqa-v2", r"download val2014\.zip \(6 GB\) by hand from https://cocodataset.*to val2014"),
])  # fmt: skip
@pytest.mark.slow
def test_it_says_what_to_do_by_hand_and_goes_on_when_it_is_done(site, tmp_path, name, says):
    publish(site, name, tmp_path / "repository", by_hand=False)
    with pytest.raises(LayeralignError, match=says) as error:
        benchmarks.cases(name)
    assert str(kept(name)) in str(error.value)
    asked = len(site.asked)
    (kept(name) / BY_HAND[name]).parent.mkdir(parents=True, exist_ok=True)
    (kept(name) / BY_HAND[name]).symlink_to(tmp_path / "repository" / BY_HAND[name])  # a link does
    assert benchmarks.cases(name)
    assert len(site.asked) == asked


@pytest.mark.parametrize("name", ["jailbreakv-28k", "jailbreakv-mini"])
def test_pictures_that_the_hub_lacks_are_had_by_hand(site, tmp_path, name):
    publish(site, name, tmp_path / "repository")
    path = "JailBreakV_28K/" + jailbreak_rows()[2]["image_path"]
    del site.files[at(name, path)]
    with pytest.raises(LayeralignError, match="only 300 of the pictures; request the others") as error:
        benchmarks.cases(name)
    assert str(kept(name) / "JailBreakV_28K") in str(error.value)
    shutil.copy(tmp_path / "repository" / path, kept(name) / path)
    assert len(benchmarks.cases(name)) == len(jailbreak_rows())


def test_a_text_that_was_put_there_by_hand_is_not_taken_for_the_fetched_one(site, tmp_path):
    publish(site, "xstest", kept("xstest"))
    with pytest.raises(LayeralignError, match=r"was not downloaded by layeralign; remove it .*xstest:FOLDER"):
        benchmarks.cases("xstest")


def test_lists_of_your_own_have_no_public_place(site, tmp_path, monkeypatch):
    offline(monkeypatch)
    for given in ("pairs", "pairs:", "pairs:3x2", "pairs:3x2:", "xstest:"):
        with pytest.raises(LayeralignError, match=r"expected (pairs|pairs:3x2|xstest):FOLDER with"):
            benchmarks.cases(given)
    make_pairs(tmp_path)
    assert len(benchmarks.cases(f"pairs:3x2:{tmp_path}")) == 6


def test_a_folder_of_its_name_does_not_hide_a_benchmark(site, tmp_path, monkeypatch):
    publish(site, "xstest", tmp_path / "repository")
    monkeypatch.chdir(tmp_path)
    Path("xstest").mkdir()
    assert benchmarks.cases("xstest")


# ---- servers that fail


@pytest.mark.parametrize("name", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(("faults", "says"), [
    ([answer(404)], "not found|no such file|no such revision|answered 404"),
    ([answer(403)], "answered 403"),
    ([answer(404, ("X-Error-Code", "RevisionNotFound"))], "not found|no such revision"),
    ([answer(503)] * 20, "answered 503, 6 times"),
    ([drop] * 20, "failed .*, 6 times"),
    ([lambda handler: handler.say(200, b"{}", [("X-Repo-Commit", "0" * 40), ("ETag", '"x"')])],
     "not a ZIP archive|column|returned revision 0000"),
])  # fmt: skip
def test_a_failure_is_one_sentence_and_leaves_nothing(site, tmp_path, name, faults, says):
    publish(site, name, tmp_path / "repository", by_hand=False)
    site.faults[at(name, text_of(name))] = list(faults)
    with pytest.raises(LayeralignError, match=says) as error:
        benchmarks.cases(name)
    said = str(error.value)
    assert said.isprintable() and at(name, text_of(name)).split("/")[-1].split(".")[0] in said
    if "column" not in said:
        assert here(name) == []


def test_a_damaged_archive_is_said_to_be_one(tmp_path, monkeypatch):
    """Some damage makes zipfile seek before the start of the file, which was said of the cache's folder."""
    origin, packed, said = BENCHMARKS["vqa-v2"].origin, io.BytesIO(), []
    path = next(iter(origin.archives))
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(path, "{}")
    whole = packed.getvalue()
    for at, bit in [(at, bit) for at in range(len(whole)) for bit in (1, 128)]:
        damaged = bytearray(whole)
        damaged[at] ^= bit
        monkeypatch.setattr(origins, "_download", lambda _, to, __, content=damaged: to.write_bytes(content))
        try:
            origin.fetch(None, path, tmp_path / "draft", 1000)
            assert (tmp_path / "draft").read_bytes() == b"{}"
        except LayeralignError as error:
            said.append(str(error))
    assert said and all("is not a ZIP archive that contains" in one for one in said)


def test_an_archive_of_thousands_of_files_is_not_read(tmp_path, monkeypatch):
    """A million of them took 7 s and 600 MB."""
    origin, packed = BENCHMARKS["vqa-v2"].origin, io.BytesIO()
    path = next(iter(origin.archives))
    with zipfile.ZipFile(packed, "w") as archive:
        for name in (*map(str, range(1000)), path):
            archive.writestr(name, "{}")
    monkeypatch.setattr(origins, "_download", lambda _, to, __: to.write_bytes(packed.getvalue()))
    with pytest.raises(LayeralignError, match="is not a ZIP archive that contains"):
        origin.fetch(None, path, tmp_path / "draft", 1000)


@pytest.mark.parametrize("name", PLACES.values(), ids=PLACES)
def test_a_server_that_recovers_is_asked_again(site, tmp_path, name):
    publish(site, name, tmp_path / "repository")
    site.faults[at(name, text_of(name))] = [answer(429, ("Retry-After", "0.01")), answer(500), answer(502)]
    assert benchmarks.cases(name)


@pytest.mark.parametrize("name", PLACES.values(), ids=PLACES)
def test_a_connection_that_was_cut_is_taken_up_again(site, tmp_path, name):
    publish(site, name, tmp_path / "repository")
    site.faults[at(name, text_of(name))] = [cut, cut] if name == "redteam-2k" else [cut]
    assert benchmarks.cases(name)
    assert not [file for file in here(name) if ".draft" in file]


@pytest.mark.parametrize("name", ["xstest", "vqa-v2"])
def test_a_connection_that_is_always_cut_leaves_nothing(site, tmp_path, name):
    publish(site, name, tmp_path / "repository", by_hand=False)
    site.faults[at(name, text_of(name))] = [cut] * 20
    with pytest.raises(LayeralignError, match=r"connection failed \(RemoteProtocolError\), 6 times"):
        benchmarks.cases(name)
    assert here(name) == [] and len(site.asked) == 6


def test_a_gated_data_set_says_what_to_do(site, tmp_path):
    publish(site, "hh-rlhf", tmp_path / "repository")
    site.faults[at("hh-rlhf", text_of("hh-rlhf"))] = [gated]
    with pytest.raises(
        LayeralignError, match=r"gated; accept the terms at https://hugg\S+hh-rlhf and set HF_TOKEN"
    ):
        benchmarks.cases("hh-rlhf")
    site.faults[at("hh-rlhf", text_of("hh-rlhf"))] = [answer(401, ("X-Error-Code", "RepoNotFound"))]
    with pytest.raises(LayeralignError, match="does not exist or needs HF_TOKEN"):
        benchmarks.cases("hh-rlhf")


def test_a_token_is_in_no_message_or_file(site, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    publish(site, "redteam-2k", tmp_path / "repository")
    for fault in (gated, answer(403), answer(401), answer(400)):
        site.faults[at("redteam-2k", text_of("redteam-2k"))] = [fault]
        assert main(["cases", "redteam-2k"]) == 1
    assert main(["cases", "redteam-2k"]) == 0
    assert "planted" not in "".join(capfd.readouterr())
    assert not [
        file for file in kept("redteam-2k").rglob("*") if file.is_file() and b"planted" in file.read_bytes()
    ]


def test_no_network_is_one_sentence_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.HOME, str(tmp_path))
    monkeypatch.setattr(origins, "SLOWEST", 0.01)
    monkeypatch.setattr(origins, "GITHUB", "http://127.0.0.1:1")
    with pytest.raises(LayeralignError, match=r"connection failed.*read your own copy with xstest:FOLDER"):
        benchmarks.cases("xstest")


@pytest.mark.parametrize("name", PLACES.values(), ids=PLACES)
def test_a_file_that_is_too_large_is_refused(site, tmp_path, monkeypatch, name):
    publish(site, name, tmp_path / "repository", by_hand=False)
    monkeypatch.setitem(BENCHMARKS[name].texts, text_of(name), 0)
    with pytest.raises(LayeralignError, match="bytes; the limit is 0"):
        benchmarks.cases(name)
    assert here(name) == []


def test_a_stream_or_an_archive_that_grows_too_large_is_stopped(site, tmp_path, monkeypatch):
    def endless(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    publish(site, "xstest", tmp_path / "repository")
    site.faults[at("xstest", text_of("xstest"))] = [endless]
    with pytest.raises(LayeralignError, match="more than 1,048,576 bytes"):
        benchmarks.cases("xstest")
    put_on(site, "vqa-v2", text_of("vqa-v2"), b" " * 2**21)  # a few kilobytes when packed
    monkeypatch.setitem(vqa.VQA.texts, text_of("vqa-v2"), 1)
    with pytest.raises(LayeralignError, match="more than 1,048,576 bytes"):
        benchmarks.cases("vqa-v2")
    assert here("xstest") == here("vqa-v2") == []


def test_a_file_without_an_end_is_refused(site, tmp_path):
    def open_ended(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"id,prompt")
        handler.close_connection = True

    publish(site, "xstest", tmp_path / "repository")
    site.faults[at("xstest", text_of("xstest"))] = [open_ended]
    with pytest.raises(LayeralignError, match="no Content-Length"):
        benchmarks.cases("xstest")


def test_a_redirect_is_followed_but_never_out_of_https(site, tmp_path, monkeypatch):
    publish(site, "xstest", tmp_path / "repository")
    path = at("xstest", text_of("xstest"))
    site.files["/elsewhere" + path] = site.files[path]
    site.faults[path] = [moved]
    assert benchmarks.cases("xstest")
    for benchmark in BENCHMARKS.values():
        assert benchmark.origin is None or site.url in benchmark.origin.url("r", next(iter(benchmark.texts)))

    def lead_astray(request):
        assert request.url.scheme == "https"
        return httpx.Response(302, headers={"Location": "http://example.org/xstest_prompts.csv"})

    monkeypatch.setattr(origins._browser("https"), "_transport", httpx.MockTransport(lead_astray))
    monkeypatch.setattr(origins._browser("https"), "_mounts", {})
    monkeypatch.setattr(origins, "GITHUB", "https://github.test")
    shutil.rmtree(kept("xstest"))
    with pytest.raises(
        LayeralignError, match=r"http://example.org\S+: refused, a redirect .* does not use https"
    ):
        benchmarks.cases("xstest")


def test_every_place_is_asked_by_https():
    for benchmark in BENCHMARKS.values():
        if benchmark.origin is not None:
            assert all(benchmark.origin.url("r", path).startswith("https://") for path in benchmark.texts)


def test_a_path_that_leaves_the_cache_is_not_fetched(site, tmp_path):
    name, rows = "jailbreakv-mini", jailbreak_rows()
    publish(site, name, tmp_path / "repository")
    rows[0]["image_path"] = "../../../out.png"
    table = tmp_path / "repository" / text_of(name)
    write_csv(table, rows)
    put_on(site, name, text_of(name), table.read_bytes())
    with pytest.raises(LayeralignError, match=r"without '\.\.'"):
        benchmarks.cases(name)
    assert not [path for _, path in site.asked if "out.png" in path]


@pytest.mark.parametrize(("record", "says"), [
    ("{", "is not a valid download record"),
    ("[]", "is not a valid download record"),
    ('{"sha256": "x"}', "is not a valid download record"),
    ('{"sha256": null, "url": "u", "revision": null, "licence": "l", "fetched": "f"}', "is not a valid download"),
    ("[" * 100_000, "is not a valid download record"),
    (json.dumps(dict.fromkeys(("sha256", "url", "revision", "licence", "fetched"), "x")), "downloaded at revision x"),
])  # fmt: skip
def test_a_record_that_is_broken_or_of_another_revision(site, tmp_path, record, says):
    publish(site, "xstest", tmp_path / "repository")
    benchmarks.cases("xstest")
    (kept("xstest") / "xstest_prompts.csv.fetched").write_text(record)
    with pytest.raises(LayeralignError, match=f"{says}.*remove (it|the file)"):
        benchmarks.cases("xstest")


def test_a_cache_that_cannot_be_written(site, tmp_path):
    publish(site, "xstest", tmp_path / "repository")
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(LayeralignError, match=r"cache/xstest: cannot be used"):
        benchmarks.cases("xstest")


@pytest.mark.slow
def test_a_fetch_that_was_killed_goes_on_with_what_is_missing(site, tmp_path):
    publish(site, "hh-rlhf", tmp_path / "repository")
    paths = [at("hh-rlhf", path) for path in BENCHMARKS["hh-rlhf"].texts]
    waiting = threading.Event()

    def hang(handler):
        if handler.command == "HEAD":
            return handler.give(site.files[paths[2]])
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(site.files[paths[2]])))
        handler.end_headers()
        handler.wfile.write(site.files[paths[2]][:20])
        handler.wfile.flush()
        waiting.set()
        time.sleep(30)

    site.faults[paths[2]] = [hang] * 3
    command = [sys.executable, "-m", "layeralign", "cases", "hh-rlhf"]
    environment = {**os.environ, "HF_ENDPOINT": site.url}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert waiting.wait(30)
        process.send_signal(signal.SIGKILL)
    complete = [path for path in BENCHMARKS["hh-rlhf"].texts if (kept("hh-rlhf") / path).exists()]
    assert complete == list(BENCHMARKS["hh-rlhf"].texts)[:2]
    site.faults.clear()
    site.asked.clear()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "20 cases" in done.stdout and "fetched 2/2" in done.stderr
    assert {path for _, path in site.asked if path in paths} == set(paths[2:])
    texts = BENCHMARKS["hh-rlhf"].texts
    assert here("hh-rlhf") == sorted([*texts, *(f"{path}.fetched" for path in texts)])  # nothing of the kill
    assert not [path for path in kept("hh-rlhf").rglob("*") if path.is_dir() and not any(path.iterdir())]


# ---- the command line and the docs


def test_the_command_line_says_where_a_benchmark_is_kept(site, tmp_path, capfd, monkeypatch):
    publish(site, "xstest", tmp_path / "repository")
    assert main(["cases", "xstest"]) == 0
    out = capfd.readouterr().out
    assert f"cached in {kept('xstest')}" in out and "licence CC BY 4.0" in out and "3 cases" in out
    offline(monkeypatch)
    assert main(["cases"]) == 0
    out = capfd.readouterr().out
    assert all(name in out for name in BENCHMARKS) and "by hand" in out


def test_the_docs_have_every_benchmark_with_its_licence_and_revision():
    table = DOCS.read_text(encoding="utf-8").partition("| name | fetched from |")[2]
    for name, benchmark in BENCHMARKS.items():
        row = next(line for line in table.splitlines() if line.startswith(f"| `{name}` |"))
        cells = [cell.strip().strip("`") for cell in row.strip("|").split("|")]
        place = benchmark.origin
        assert cells[1] == (getattr(place, "repo", None) or getattr(place, "folder", None) or "–")
        assert cells[2:] == [benchmark.by_hand or "–", benchmark.licence, benchmark.revision or "–"]


def test_a_cache_in_the_home_of_nobody_is_a_folder_of_that_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAYERALIGN_CACHE", "~nosuchuser/cache")
    assert main(["cases"]) == 0
