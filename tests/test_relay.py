"""`serve --engine vllm`: real HTTP on both sides, with a loopback server that keeps vLLM's contract."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

import layeralign
import vllm_loopback
from layeralign import LayeralignError
from layeralign._util.stopping import Stopped
from layeralign.analysis.results import Results
from layeralign.cli import main
from layeralign.decode.decoding import Decoding
from layeralign.runs.opening import open_run
from layeralign.serving import relay
from layeralign.serving.server import Server
from layeralign.sweep.vllm.scan import connected
from serve_clients import ASKED, EXITS, SHORT, ask, body, events, running, scan_answers, text_of


@pytest.fixture(scope="module")
def vlm():
    return layeralign.load("testbed")


@pytest.fixture(scope="module")
def scanned(vlm, tmp_path_factory):
    """Case and exit -> the scan's answer."""
    return scan_answers(vlm, tmp_path_factory.mktemp("scanned") / "run")


@pytest.fixture(scope="module")
def theirs(vlm):
    with vllm_loopback.serving(vlm) as server:
        yield server


@pytest.fixture
def changed(vlm):
    """A server that a test changes for good."""
    with vllm_loopback.serving(vlm) as server:
        yield server


@pytest.fixture(scope="module")
def client(theirs):
    ours, server = connected(theirs.url, {"model": "testbed"})
    with running(ours, vllm=server) as made:
        yield made


@pytest.mark.slow
def test_concurrent_clients_get_the_answers_of_the_scan(client, scanned):
    asked = [(case, exit) for case in ASKED for exit in EXITS]
    with ThreadPoolExecutor(20) as clients:
        replies = list(clients.map(lambda one: text_of(ask(client, body(*one))), asked))
    assert replies == [scanned[case.id, exit] for case, exit in asked]
    assert len(set(replies)) > 5


@pytest.mark.slow
def test_a_stream_a_stop_text_and_several_answers(client, scanned):
    case, whole = ASKED[0], scanned[ASKED[0].id, 7]
    _, words = events(client, body(case, n=2))
    assert words == {0: whole, 1: whole}
    stop = whole.split()[2]
    assert text_of(ask(client, body(case, stop=stop))) == whole[: whole.index(stop)]


@pytest.mark.slow
def test_samples_have_the_seed_of_the_request(client):
    given = body(ASKED[0], temperature=30, seed=3)
    first, again = text_of(ask(client, given)), text_of(ask(client, given))
    others = {text_of(ask(client, given | {"seed": seed})) for seed in range(4, 8)}
    assert first == again and others - {first}


def test_all_turns_and_settings_reach_the_server(client, theirs):
    turns = [
        {"role": "user", "content": ASKED[1].prompt},
        {"role": "assistant", "content": "i can not help with that"},
    ]
    given = body(ASKED[0], max_tokens=3)
    text_of(ask(client, given | {"messages": [*turns, *given["messages"]]}))
    sent = theirs.bodies[-1]
    assert [one["role"] for one in sent["messages"]] == ["user", "assistant", "user"]
    assert [part["type"] for part in sent["messages"][-1]["content"]] == ["image_embeds", "text"]
    assert sent["max_tokens"] == 3


@pytest.mark.parametrize("broken", [400, {"choices": []}])
def test_a_request_that_fails_is_no_answer(client, theirs, broken):
    asked = len(theirs.bodies)
    theirs.broken = {asked + n: broken for n in range(3)}
    failed = ask(client, body(ASKED[0]))
    assert (failed.status_code, failed.json()["error"]["code"]) == (502, "engine_failed")
    theirs.broken = {}
    assert text_of(ask(client, body(ASKED[0])))


def test_a_prompt_that_is_read_otherwise_is_no_answer(client, theirs, capsys):
    theirs.ids = lambda ids: [*ids[:-1], ids[-1] + 1]
    assert ask(client, body(ASKED[0])).status_code == 502
    assert "which differ from token" in capsys.readouterr().err
    theirs.ids = list
    assert text_of(ask(client, body(ASKED[0])))


def test_a_server_that_dies_is_an_error_of_each_request(client, theirs):
    theirs.dies_after = 0
    assert ask(client, body(ASKED[0])).status_code in (500, 502)
    theirs.dies_after = None
    assert text_of(ask(client, body(ASKED[0])))


def test_clients_that_leave_leave_nothing_in_the_queue(client, theirs):
    """Their answers counted for ever, and after 1,024 of them every client was told that the queue is full."""
    theirs.hangs = threading.Event()
    with pytest.raises(httpx.ReadTimeout):
        client.post("/chat/completions", json=body(ASKED[0], n=3), timeout=1)
    until = time.monotonic() + 20
    while client.server._scheduler.answers and time.monotonic() < until:
        time.sleep(0.05)
    theirs.hangs.set()
    theirs.hangs = None
    assert client.server._scheduler.answers == 0
    assert text_of(ask(client, body(ASKED[0])))


@pytest.mark.slow
def test_a_server_that_hangs_at_the_end_is_not_waited_for(changed, monkeypatch):
    """A stop waited for half an hour."""
    monkeypatch.setattr(relay, "AGAIN", 0.2)
    ours, server = connected(changed.url, {"model": "testbed"})
    with running(ours, vllm=server) as client:
        changed.hangs = threading.Event()
    changed.hangs.set()
    assert "requests failed at the end" in client.ended[0]


@pytest.mark.slow
def test_the_log_is_a_run_of_this_engine(theirs, tmp_path):
    ours, server = connected(theirs.url, {"model": "testbed"})
    with running(ours, log=tmp_path / "log", vllm=server) as client:
        text_of(ask(client, body(ASKED[0], exit=0)))
    with open_run(tmp_path / "log") as run:
        assert run.identity["engine"] == {"name": "vllm", "version": "0.32.0", "model": "m"}
        assert [row["exit"] for row in run.rows()] == [0]
    with pytest.raises(LayeralignError, match="another"):
        Server(ours, SHORT, port=0, log=tmp_path / "log")


@pytest.mark.slow
def test_a_server_that_changes_meanwhile_is_said_at_the_end(changed):
    ours, server = connected(changed.url, {"model": "testbed"})
    with running(ours, vllm=server) as client:
        text_of(ask(client, body(ASKED[0])))
        changed.ids = lambda ids: [*ids[:-4], *ids[-4:][::-1]]
    assert "no longer those" in client.ended[0]


@pytest.mark.slow
def test_a_signal_does_not_pass_over_the_check_at_the_end(changed, tmp_path, monkeypatch):
    """Signals stop a server, as exceptions, and no check was made; its log counted as this model's."""
    ours, server = connected(changed.url, {"model": "testbed"})
    ends = Server(ours, SHORT, port=0, log=tmp_path / "log", vllm=server)

    def stopped(sockets):
        changed.ids = lambda ids: [*ids[:-4], *ids[-4:][::-1]]
        raise Stopped(15)

    monkeypatch.setattr(ends.http, "run", stopped)
    with pytest.raises(LayeralignError, match="no longer those"):
        ends.run()
    assert "changed while it answered" in Results.load(tmp_path / "log").changed
    changed.ids = list
    with pytest.raises(LayeralignError, match="changed while it answered"):
        Server(ours, SHORT, port=0, log=tmp_path / "log", vllm=server)


@pytest.mark.slow
def test_a_server_of_another_model_is_refused(changed):
    changed.layer = 0
    ours, server = connected(changed.url, {"model": "testbed"})
    with pytest.raises(LayeralignError, match="encoder layer"):
        Server(ours, Decoding(max_new_tokens=24), port=0, vllm=server)


@pytest.mark.slow
def test_engine_and_endpoint_belong_together(vlm, capsys):
    for flags in (["--engine", "vllm"], ["--endpoint", "http://127.0.0.1:1/v1"]):
        assert main(["serve", "--model", "testbed", *flags]) == 1
        assert "belong together" in capsys.readouterr().err
    with pytest.raises(LayeralignError, match="folder or hub id"):
        layeralign.serve(vlm, engine="vllm", endpoint="http://127.0.0.1:1/v1")
