"""Any exit behind an OpenAI-compatible endpoint: real HTTP, real model, one engine for all exits."""

import base64
import io
import re
import signal
import socket
import sqlite3
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import httpx
import pytest
from PIL import Image

import children
import layeralign
from layeralign import LayeralignError
from layeralign._util.stopping import Stopped
from layeralign.analysis.results import Results
from layeralign.cli import main
from layeralign.decode.decoding import Decoding
from layeralign.judges.models.remote import Endpoint
from layeralign.runs.opening import SEAL
from layeralign.runs.store import FILE
from layeralign.serving import limits
from layeralign.serving.features import Features
from layeralign.serving.server import Server
from layeralign.serving.text import certain as certain_part
from serve_clients import ASKED, EXITS, SHORT, ask, body, events, picture_part, running, scan_answers, text_of


@pytest.fixture(scope="module")
def vlm():
    return layeralign.load("testbed")


@pytest.fixture(scope="module")
def scanned(vlm, tmp_path_factory):
    """Case and exit -> the scan's answer."""
    return scan_answers(vlm, tmp_path_factory.mktemp("scanned") / "run")


@pytest.fixture(scope="module")
def client(vlm):
    with running(vlm) as made:
        yield made


# --- answers


@pytest.mark.slow
@pytest.mark.parametrize("streams", [True, False])
def test_concurrent_clients_get_the_answers_of_the_scan(vlm, scanned, streams, monkeypatch):
    monkeypatch.setattr(vlm, "streams", streams, raising=False)
    asked = [(case, exit) for case in ASKED for exit in EXITS]
    with running(vlm) as client, ThreadPoolExecutor(20) as clients:
        replies = list(clients.map(lambda one: text_of(ask(client, body(*one))), asked))
    assert replies == [scanned[case.id, exit] for case, exit in asked]
    assert len(set(replies)) > 5


def test_a_request_that_names_no_exit_is_answered_at_the_default_exit(client, scanned):
    for name in ("testbed", "testbed@default", "testbed@-2"):
        assert text_of(ask(client, body(ASKED[0]) | {"model": name})) == scanned[ASKED[0].id, 7]


def test_a_stream_has_the_same_answer(client, scanned):
    found, words = events(client, body(ASKED[0], stream_options={"include_usage": True}))
    assert words == {0: scanned[ASKED[0].id, 7]} and len(found) > 5
    assert found[-2]["choices"][0]["finish_reason"] == "stop"
    usage = found[-1]["usage"]
    assert usage == ask(client, body(ASKED[0])).json()["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.fixture
def encoded(vlm, monkeypatch):
    """How many pictures each call of the encoder got."""
    numbers, encode = [], vlm.encode

    def counted(pictures, exits):
        numbers.append(len(pictures))
        return encode(pictures, exits)

    monkeypatch.setattr(vlm, "encode", counted, raising=False)
    return numbers


def test_a_picture_that_is_asked_about_again_is_not_encoded_again(vlm, scanned, encoded):
    with running(vlm) as client:
        for _ in range(2):
            for exit in EXITS:
                assert text_of(ask(client, body(ASKED[0], exit))) == scanned[ASKED[0].id, exit]
        given = body(ASKED[0])
        given["messages"][0]["content"][0]["text"] = "is there a circle?"
        assert text_of(ask(client, given)) != scanned[ASKED[0].id, 7]
    assert encoded == [1, 1]


def test_the_features_that_were_used_last_are_kept(vlm, encoded):
    first, second, third = ({(case.picture.sha256, 7): (case, 7, 0)} for case in ASKED[:3])
    (feature,) = Features(vlm, 0).of(first).values()
    kept = Features(vlm, 2 * feature.nbytes)
    for asked in (first, second, first, third, first, second):
        assert None not in kept.of(asked).values()
    assert encoded == [1] * 5
    blind = {None: (replace(ASKED[0], picture=None), 7, 0)}
    assert [*kept.of(first | second | third | blind).values()].count(None) == 1
    assert encoded == [1] * 6 and len(kept._kept) == 2


@pytest.mark.slow
def test_samples_depend_on_the_seed_and_on_nothing_else(client):
    given = body(ASKED[0], exit=0, n=6, seed=3, temperature=1.5)
    with ThreadPoolExecutor(4) as clients:  # greedy rows and rows of another temperature share the batch
        others = [body(case, temperature=heat, seed=1) for case in ASKED[1:] for heat in (0, 0.7)]
        replies = list(clients.map(lambda one: ask(client, one).json(), [given, *others, given]))
    first, last = ([c["message"]["content"] for c in replies[at]["choices"]] for at in (0, -1))
    assert first == last and len(set(first)) > 1
    other = ask(client, given | {"seed": 4}).json()["choices"]
    assert [c["message"]["content"] for c in other] != first
    assert events(client, given)[1] == dict(enumerate(first))


def test_an_answer_ends_before_a_stop_text_and_at_the_limit(client, scanned):
    whole = scanned[ASKED[0].id, 7]
    stop = whole.split()[3]
    reply = ask(client, body(ASKED[0], stop=["not there", stop])).json()["choices"][0]
    assert reply["message"]["content"] == whole[: whole.index(stop)] and reply["finish_reason"] == "stop"
    assert events(client, body(ASKED[0], stop=stop))[1] == {0: whole[: whole.index(stop)]}
    cut = ask(client, body(ASKED[0], max_completion_tokens=3)).json()
    assert cut["choices"][0]["finish_reason"] == "length" and cut["usage"]["completion_tokens"] == 3
    assert whole.startswith(cut["choices"][0]["message"]["content"])


def test_the_order_of_text_and_picture_and_empty_fields_do_not_matter(client, scanned):
    given = body(
        ASKED[0], tools=None, frequency_penalty=0, response_format={"type": "text"}, user="u", logprobs=False
    )
    given["messages"][0]["content"].reverse()
    assert text_of(ask(client, given)) == scanned[ASKED[0].id, 7]


def test_our_own_client_for_judges_can_ask_it(client, scanned):
    (reply,) = Endpoint.of(str(client.base_url), "testbed@0").ask_all(
        [body(ASKED[1])["messages"]], max_tokens=24
    )
    assert reply.text == scanned[ASKED[1].id, 0]


def test_models_health_and_metrics(client):
    names = [one["id"] for one in client.get("/models").json()["data"]]
    assert names == ["testbed", "testbed@default", *(f"testbed@{exit}" for exit in range(9))]
    assert client.get("/models/testbed@3").json()["id"] == "testbed@3"
    assert client.get("/models/testbed@9").status_code == 404
    top = str(client.base_url).removesuffix("/v1/")
    assert httpx.get(f"{top}/health").json() == {"status": "ok"}
    text_of(ask(client, body(ASKED[0], exit=3)))
    lines = httpx.get(f"{top}/metrics").text
    assert 'layeralign_serve_answers_total{exit="3",finish_reason="stop"} 1.0' in lines
    assert "layeralign_serve_queue 0.0" in lines


def test_several_turns_are_in_the_prompt_and_a_system_prompt_needs_a_template_for_it(client):
    turns = [("user", "how?"), ("assistant", "so."), ("user", "describe it.")]
    given = {"model": "testbed", "messages": [{"role": role, "content": text} for role, text in turns]}
    one = given | {"messages": given["messages"][-1:]}
    made, alone = (ask(client, each).json()["usage"]["prompt_tokens"] for each in (given, one))
    assert made > alone + 4
    system = given | {"messages": [{"role": "system", "content": "be brief."}, *one["messages"]]}
    assert "does not support a system prompt" in ask(client, system).json()["error"]["message"]


# --- what is refused

WORDS = {"role": "user", "content": "how?"}
LONG = "data:image/png;base64," + base64.b64encode(b"x" * 100).decode()


def zip_bomb():
    out = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


REFUSED = [
    ({"model": "testbed@all"}, 404, "model"),
    ({"model": "testbed@9"}, 404, "model"),
    ({"model": "testbed@1,2"}, 404, "model"),
    ({"model": "gpt-4"}, 404, "model"),
    ({"model": 7}, 400, "model"),
    ({"model": None}, 400, "model"),
    ({"messages": []}, 400, "messages"),
    ({"messages": "how?"}, 400, "messages"),
    ({"messages": [7]}, 400, "messages[0]"),
    ({"messages": [WORDS] * 101}, 400, "messages"),
    ({"messages": [WORDS, {"role": "assistant", "content": "so."}]}, 400, "messages"),
    ({"messages": [WORDS, {"role": "system", "content": "so."}, WORDS]}, 400, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].role"),
    ({"messages": [{"role": "user", "content": "how <image>?"}]}, 400, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, 400, "messages[0].content[0].type"),
    ({"messages": [{"role": "user", "content": [picture_part("https://example.org/a.png")]}]}, 400, "messages"),
    ({"messages": [{"role": "user", "content": [picture_part("file:///etc/passwd")]}]}, 400, "messages"),
    ({"messages": [{"role": "user", "content": [picture_part(LONG)]}]}, 400, "messages"),
    ({"messages": [{"role": "user", "content": [picture_part("data:image/png;base64,@@")]}]}, 400, "messages"),
    ({"messages": [{"role": "user", "content": [picture_part(zip_bomb())]}]}, 400, "messages"),
    ({"temperature": "hot"}, 400, "temperature"),
    ({"temperature": -1}, 400, "temperature"),
    ({"top_p": 0}, 400, "top_p"),
    ({"n": 33}, 400, "n"),
    ({"n": True}, 400, "n"),
    ({"seed": 0.5}, 400, "seed"),
    ({"max_tokens": 0}, 400, "max_tokens"),
    ({"max_tokens": 10**8}, 400, "max_tokens"),
    ({"stop": [""]}, 400, "stop"),
    ({"stop": ["x"] * 17}, 400, "stop"),
    ({"stream": "yes"}, 400, "stream"),
    ({"tools": [{"type": "function"}]}, 400, "tools"),
    ({"logprobs": True}, 400, "logprobs"),
    ({"response_format": {"type": "json_object"}}, 400, "response_format"),
    ({"frequency_penalty": 0.5}, 400, "frequency_penalty"),
    ({"top_k": 5}, 400, "top_k"),
    ({"metadata": {"kind": "vqa"}}, 400, "metadata"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "status", "param"), REFUSED, ids=lambda one: str(one)[:50])
def test_a_wrong_request_is_refused_in_one_sentence(client, wrong, status, param):
    response = ask(client, {"model": "testbed", "messages": [WORDS]} | wrong)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param)
    assert error["type"] == "invalid_request_error" and 10 < len(error["message"]) < 600


def test_a_second_picture_is_refused(client):
    for given in (body(ASKED[0]), body(ASKED[0])):
        given["messages"][0]["content"].append(given["messages"][0]["content"][1])
        assert "second picture" in ask(client, given).json()["error"]["message"]
    given = body(ASKED[0])
    given["messages"] = [*given["messages"], {"role": "assistant", "content": "so."}, *given["messages"]]
    assert "second picture" in ask(client, given).json()["error"]["message"]


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"{", b"[" * 100_000, b'{"n": NaN}', b'{"n": 1, "n": 2}', b"\xff"]
)
def test_what_is_no_json_object_is_refused(client, content):
    response = client.post("/chat/completions", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400 and response.json()["error"]["message"].startswith("request: ")


def test_other_types_hosts_paths_and_large_bodies_are_refused(client, monkeypatch):
    assert client.post("/chat/completions", content=b"{}").status_code == 415
    assert ask(client, {}, host="evil.example:8001").status_code == 421
    assert client.get("/chat/completions").json()["error"]["type"] == "invalid_request_error"
    assert client.get("/completions").status_code == 404
    monkeypatch.setattr("layeralign.serving.app.BODY", 1000)
    assert ask(client, {"model": "x" * 2000}).status_code == 413
    parts = (b"x" * 600 for _ in range(3))  # no Content-Length
    sent = client.post("/chat/completions", content=parts, headers={"content-type": "application/json"})
    assert sent.status_code == 413


def test_a_slow_body_is_given_up(client, monkeypatch):
    monkeypatch.setattr("layeralign.serving.app.SLOW", 0.2)
    port = client.server.url.rpartition(":")[2].partition("/")[0]
    with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as slow:
        slow.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")


# --- keys


def test_another_host_needs_a_key(vlm, monkeypatch):
    monkeypatch.delenv("LAYERALIGN_API_KEY", raising=False)
    with pytest.raises(LayeralignError, match="need a key"):
        Server(vlm, SHORT, host="0.0.0.0", port=0)
    monkeypatch.setenv("LAYERALIGN_API_KEY", "short")
    with pytest.raises(LayeralignError, match="at least 16"):
        Server(vlm, SHORT, port=0)
    monkeypatch.setenv("LAYERALIGN_API_KEY", "k" * 20)
    with running(vlm) as client:
        for wrong in (
            {},
            {"authorization": "Bearer kkk"},
            {"authorization": "k" * 20},
            {"authorization": "Bearer é"},
        ):
            found = client.get("/models", headers={k: v.encode("latin-1") for k, v in wrong.items()})
            assert (found.status_code, found.json()["error"]["code"]) == (401, "invalid_api_key")
        right = {"authorization": f"Bearer {'k' * 20}"}
        assert client.get("/models", headers=right).status_code == 200
        assert httpx.get(client.server.url.removesuffix("/v1") + "/health").status_code == 200


def test_a_port_that_is_taken_and_a_wrong_setting_are_refused(vlm, client, capsys):
    port = int(client.server.url.rpartition(":")[2].partition("/")[0])
    with pytest.raises(LayeralignError, match=f"port {port}: cannot listen there"):
        Server(vlm, SHORT, port=port)
    with pytest.raises(LayeralignError, match="port 70000: expected"):
        layeralign.serve(vlm, port=70000)
    with pytest.raises(LayeralignError, match="expected at most max_tokens"):
        layeralign.serve(vlm, port=0, max_new_tokens=100, max_tokens=50)
    with pytest.raises(LayeralignError, match="heat: is not a setting"):
        layeralign.serve(vlm, heat=1)
    assert main(["serve", "--model", "testbed", "--port", "x"]) == 1
    assert "--port" in capsys.readouterr().err


# --- limits of the queue and of time


@pytest.fixture
def slow(vlm, monkeypatch):
    """The model takes 0.2 s for a token and never ends; the event says when it has begun."""
    began, step = threading.Event(), vlm.decode_step

    def decode_step(*arguments):
        began.set()
        time.sleep(0.2)
        return step(*arguments)

    monkeypatch.setattr(vlm, "decode_step", decode_step, raising=False)
    monkeypatch.setattr(vlm, "ends", {})
    return began


def reaches(client, answers, seconds=15.0):
    """Whether that many answers wait or are being generated soon."""
    end = time.monotonic() + seconds
    while client.server._scheduler.answers != answers and time.monotonic() < end:
        time.sleep(0.01)
    return client.server._scheduler.answers == answers


def idle(client):
    """Whether no answer is being generated soon."""
    return reaches(client, 0)


def test_a_client_that_leaves_frees_its_row(vlm, slow):
    with running(vlm, Decoding(max_new_tokens=200)) as client:
        given = body(ASKED[0], n=4)
        with client.stream("POST", "/chat/completions", json=given | {"stream": True}) as response:
            lines = response.iter_lines()  # kept: httpx closes the connection with its iterator
            next(lines)
            assert reaches(client, 4)
        assert idle(client)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/chat/completions", json=given, timeout=0.5)
        assert idle(client)


@pytest.mark.slow
def test_a_full_queue_refuses_more(vlm, slow, monkeypatch):
    monkeypatch.setattr("layeralign.serving.scheduler.QUEUE", 4)
    with running(vlm, Decoding(max_new_tokens=20)) as client, ThreadPoolExecutor(1) as clients:
        first = clients.submit(ask, client, body(ASKED[0], n=4))
        assert slow.wait(60)
        full = ask(client, body(ASKED[0]))
        assert (full.status_code, full.json()["error"]["code"]) == (429, "queue_full")
        assert full.headers["retry-after"] and first.result().status_code == 200


def test_a_late_answer_is_given_up(vlm, slow, monkeypatch):
    monkeypatch.setattr("layeralign.serving.server.SECONDS", 0.5)
    with running(vlm, Decoding(max_new_tokens=200)) as client:
        assert ask(client, body(ASKED[0], n=4)).status_code == 504 and idle(client)


def test_a_prompt_that_is_too_long_is_refused(client):
    response = ask(client, {"model": "testbed", "messages": [{"role": "user", "content": "how? " * 2000}]})
    assert response.json()["error"]["code"] == "context_length_exceeded"


def test_an_engine_that_fails_starts_anew(vlm, client, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(vlm, "logits", lambda hidden: 1 / 0, raising=False)
        failed = ask(client, body(ASKED[0]))
    assert failed.status_code == 500 and failed.json()["error"]["type"] == "server_error"
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert ask(client, body(ASKED[0])).status_code == 200


def test_a_numerical_failure_is_no_answer(vlm, client, monkeypatch):
    with monkeypatch.context() as patch:
        own = vlm.logits
        patch.setattr(vlm, "logits", lambda hidden: own(hidden) * float("nan"), raising=False)
        failed = ask(client, body(ASKED[0]))
    assert (failed.status_code, failed.json()["error"]["code"]) == (500, "non_finite")


# --- the log


@pytest.mark.slow
def test_every_exchange_is_a_row_of_a_run(vlm, scanned, tmp_path, capsys):
    folder = tmp_path / "log"
    with running(vlm, log=folder) as client:
        for case in ASKED[:3]:
            for exit in EXITS:
                text_of(ask(client, body(case, exit)))
        text_of(ask(client, body(ASKED[0], 0, metadata={"kind": "benign", "category": "borderline"})))
        with pytest.raises(LayeralignError, match="another command writes"):
            layeralign.judge(folder, ["refusal"])
    with running(vlm, log=folder) as client:  # it can be continued
        text_of(ask(client, body(ASKED[0], 0)))
        events(client, body(ASKED[0], 0, n=2, temperature=1.0, seed=1))
    run = Results.load(folder)
    assert sorted(run.answers.values()) != [] and len(run.answers) == 10 and run.sealed
    kinds = [(case.kind, case.prompt) for case in run.cases]
    assert kinds.count(("harmful", ASKED[0].prompt)) == 2 and ("benign", ASKED[0].prompt) in kinds
    first = next(case for case in run.cases if case.prompt == ASKED[0].prompt and case.kind == "harmful")
    assert run.answers[first.id, 0, 0] == run.answers[first.id, 0, 1] == scanned[ASKED[0].id, 0]
    assert stat.S_IMODE((folder / "run.sqlite").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert main(["summary", str(folder)]) == 0
    assert main(["judge", str(folder), "--judge", "refusal", "--again"]) == 0
    assert main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    capsys.readouterr()
    assert main(["plan", "--cases", "testbed", "--limit", "4", "--like", str(folder)]) == 1
    assert "has no timings" in capsys.readouterr().err  # it had those of writing
    policy = tmp_path / "policy.yaml"
    policy.write_text("judge: refusal\nrules:\n  - {metric: asr, exits: all, upper_bound: 0.999}\n")
    assert main(["gate", str(folder), "--policy", str(policy)]) in (0, 2, 3), capsys.readouterr().err
    with pytest.raises(LayeralignError, match="other settings"):
        Server(vlm, Decoding(max_new_tokens=9), port=0, log=folder)


def test_nothing_is_answered_that_cannot_be_logged(vlm, tmp_path, monkeypatch, capsys):
    from layeralign.runs.store import Run

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(Run, "add_answers", full)
    with running(vlm, log=tmp_path / "log") as client:
        assert ask(client, body(ASKED[0])).status_code == 503
        assert ask(client, body(ASKED[0])).status_code == 503
        assert httpx.get(client.server.url.removesuffix("/v1") + "/health").status_code == 503
    assert "No space left" in capsys.readouterr().err
    assert "could not be written or judged to its end" in client.ended[0]


def without(log, table):
    with running(vlm := layeralign.load("testbed"), log=log) as client:
        ask(client, body(ASKED[0]))
    (log / SEAL).unlink()
    with closing(sqlite3.connect(log / FILE)) as db, db:
        db.execute(f"DROP TABLE {table}")
    return vlm


@pytest.mark.slow
@pytest.mark.parametrize("table", ["answers", "sessions"])
def test_a_damaged_log_stops_the_server_at_its_start(tmp_path, table):
    """It hung, or waited for answers that a thread which had ended could not store."""
    vlm = without(tmp_path / "log", table)
    with pytest.raises(LayeralignError, match="has other tables"):
        Server(vlm, SHORT, port=0, log=tmp_path / "log")


@pytest.mark.slow
def test_a_log_that_cannot_be_judged_is_said_at_the_end(vlm, tmp_path, capsys):
    with running(vlm, log=tmp_path / "log") as client:
        with closing(sqlite3.connect(tmp_path / "log" / FILE)) as db, db:
            db.execute("DROP TABLE judges")
        assert ask(client, body(ASKED[1])).status_code == 200
    assert "no such table" in capsys.readouterr().err and len(client.ended) == 1


@pytest.mark.slow
def test_a_signal_does_not_hide_a_log_that_failed(vlm, tmp_path, monkeypatch):
    """A signal stops a server, as an exception: it was told that finished work is saved."""
    server = Server(vlm, SHORT, port=0, log=tmp_path / "log")

    def stopped(sockets):
        server._log.failed = True
        raise Stopped(15)

    monkeypatch.setattr(server.http, "run", stopped)
    with pytest.raises(LayeralignError, match="the log could not be written"):
        server.run()


@pytest.mark.slow
def test_each_request_keeps_its_category(vlm, tmp_path):
    """Equal requests with other categories were one case, with the first one's category."""
    told = [{"category": "a"}, {"category": "b"}, {}, {"category": "b"}]
    with running(vlm, log=tmp_path / "log") as client:
        for metadata in told:
            ask(client, body(ASKED[0], metadata=metadata))
    run = Results.load(tmp_path / "log")
    category = {case.id: case.category for case in run.cases}
    assert sorted(category[key[0]] for key in run.answers) == ["", "a", "b", "b"]


def test_another_signal_at_the_end_does_not_leave_the_log_open(vlm, tmp_path, monkeypatch):
    """A third Ctrl-C, while the model was still at its last token: the log's thread waited for ever."""
    server = Server(vlm, SHORT, port=0, log=tmp_path / "log")

    def stopped(*_, **__):
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr(server.http, "run", stopped)
    with monkeypatch.context() as patch:
        patch.setattr(server._scheduler, "close", stopped)
        with pytest.raises(Stopped):
            server.run()
    open_still = server._log._thread.is_alive()
    server._scheduler.close()
    server._log.close()
    assert not open_still and Results.load(tmp_path / "log").sealed


@pytest.mark.parametrize(
    "where",
    ["concurrent.futures.Future.result", "layeralign.serving.app.Api.app", "layeralign.serving.server.say"],
)
def test_a_signal_at_the_start_leaves_no_thread(vlm, tmp_path, monkeypatch, where):
    """A signal while the log was opened, or right after it: the process waited for the log's thread for ever."""

    def stopped(*_, **__):
        raise Stopped(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(where, stopped)
        with pytest.raises(Stopped):
            Server(vlm, SHORT, port=0, log=tmp_path / "log").run()
    left = [thread for thread in threading.enumerate() if thread.name == "log"]
    for thread in left:  # so that the tests end where this one fails
        thread._target.__self__._given.put(None)
        thread.join()
    assert not left


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_answers_that_are_being_generated_and_closes_the_log(tmp_path, number):
    """SIGHUP was an exception in the middle of the event loop: requests broke, and some servers never ended."""
    out, folder = tmp_path / "out", tmp_path / "log"
    server = children.interpreter(
        "serve", "--model", "testbed", "--port", "0", "--log", str(folder), "--max-new-tokens", "200", out=out
    )
    server.wait_for(lambda: "serving" in server.said())
    url = re.search(r"http://[\d.:]+/v1", server.said())[0]
    with ThreadPoolExecutor(8) as clients:
        given = body(ASKED[0], n=16, temperature=50.0, seed=1)  # a random walk: no end for long
        replies = [
            clients.submit(httpx.post, f"{url}/chat/completions", json=given, timeout=60) for _ in range(4)
        ]
        top = url.removesuffix("/v1")
        server.wait_for(lambda: float(re.search(r"queue (\d+)", httpx.get(f"{top}/metrics").text)[1]) > 48)
        server.send(number)
        assert {reply.result().status_code for reply in replies} == {200}
    assert server.wait() == 128 + number and "Traceback" not in server.said()
    assert len(Results.load(folder).answers) == 64 and Results.load(folder).sealed
    assert ASKED[0].prompt not in server.said()


# --- parts


def test_a_stream_holds_back_what_later_tokens_can_change(vlm):
    def certain(text, stop=(), reasoning="auto"):
        asked = type("Asked", (), {"stop": stop, "decoding": Decoding(reasoning=reasoning)})
        return certain_part(vlm, text, asked)

    assert certain("the answer") == "the answer"
    assert certain("the \ufffd") == "the "
    assert certain("<thi") == certain("<think>") == certain("") == ""
    assert certain("<thi", reasoning="none") == "<thi"
    assert certain("so <r>", reasoning="<r> </r>") == ""
    assert certain("abcdef", stop=("xyz",)) == "abcd"
    assert certain("ENDOF", stop=("ENDOFTEXT",)) == certain("so END", stop=("ENDOFTEXT",)) == ""
    assert limits.Refused("x", 429).body()["error"]["type"] == "rate_limit_error"
