"""Servers that misbehave: every attempt ends in time and in little memory, and no key goes astray."""

import gzip
import http.server
import json
import resource
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from faulty import completion
from layeralign import LayeralignError
from layeralign.judges.models import content
from layeralign.judges.models.address import address
from layeralign.judges.models.remote import Completion, Endpoint
from layeralign.judges.models.service import Failure, Service

QUICK = {"attempts": 2, "slowest": 0.01, "timeout": 0.5, "budget": 5.0, "workers": 2}
ASKED = [[{"role": "user", "content": "hello"}]] * 3


@contextmanager
def serving(answer):
    """A server that calls `answer(handler)` for every request."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            try:
                answer(self)
            except OSError:  # the client gave up
                self.close_connection = True

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def broken(handler):
    handler.send_response(503)
    handler.send_header("Content-Length", "0")
    handler.send_header("Retry-After", "20")
    handler.end_headers()


def drip_body(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    while True:
        handler.wfile.write(b" ")
        time.sleep(0.05)


def drip_headers(handler):
    while True:
        handler.connection.sendall(b"H")
        time.sleep(0.05)


def endless(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", str(10**9))
    handler.end_headers()
    while True:
        handler.wfile.write(b" " * 2**20)


BOMB = gzip.compress(b"0" * 10**8, 1)


def bomb(handler):
    content = BOMB
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def says(content):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "why"), [
    (drip_body, "timed out"), (drip_headers, "the connection failed|timed out"), (endless, "longer than 16 MiB|timed out"),
    (bomb, "compressed"), (says(json.dumps(completion("safe")).encode("utf-16")), "not a valid completion"), (says(b"[" * 10**5), "not a valid completion"),
    (says(b"[" * 10**5 + b"]" * 10**5), "not a valid completion"),
    (says(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), "not a valid completion"),
    (says(b'{"choices":[' + b'{"":{}},' * 1_500_000 + b"{}]}"), "not a valid completion|timed out"),  # 12 MB
])  # fmt: skip
def test_a_bad_reply_is_an_invalid_try_in_bounded_time_and_memory(answer, why):
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with serving(answer) as url:
        found = Endpoint.of(url, "m", **QUICK | {"workers": 4}).ask_all(ASKED, max_tokens=5)
    assert all(isinstance(one, Failure) for one in found)
    assert any(word in found[0].why for word in why.split("|"))
    assert time.monotonic() - start < 15
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB


def test_a_log_probability_beyond_every_float_is_none():
    made = completion("safe")
    made["choices"][0]["logprobs"] = {"content": [{"top_logprobs": [{"logprob": 10**400}]}]}
    with serving(says(json.dumps(made).encode())) as url:
        found = Endpoint.of(url, "m", **QUICK).ask_all(ASKED, max_tokens=5)
    assert found == [Completion("safe", True)] * 3


def test_a_reply_longer_than_any_answer_is_an_invalid_try():
    """256 replies are in memory together, each of up to 16 MiB, and four times that with an emoji."""
    with serving(says(json.dumps(completion("safe " * 60_000)).encode())) as url:
        found = Endpoint.of(url, "m", **QUICK).ask_all(ASKED, max_tokens=5)
    assert [one.why for one in found] == [
        "the reply was longer than 262,144 characters, 2 times or for 5 s"
    ] * 3


def test_replies_that_are_held_back_are_bounded_together(monkeypatch):
    """Each lacks its last byte. Up to 512 requests may be in flight, and a response may have 16 MiB."""
    assert content.MOST_HELD == 2**28
    monkeypatch.setattr(content, "MOST_HELD", 2**21)
    part = b" " * 2**20

    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(part) + 1))
        handler.end_headers()
        handler.wfile.write(part)
        time.sleep(4)

    with serving(answer) as url:
        slow = QUICK | {"attempts": 1, "timeout": 3, "workers": 8}
        found = Endpoint.of(url, "m", **slow).ask_all(ASKED * 2, max_tokens=5)
    held = [one.why for one in found].count("timed out, 1 times or for 5 s")
    assert held == 2 and "all responses at a time were longer than 2 MiB" in " ".join(
        one.why for one in found
    )
    with serving(says(json.dumps(completion("safe")).encode())) as url:  # what was read makes room
        monkeypatch.setattr(content, "MOST_HELD", 1000)
        assert (
            Endpoint.of(url, "m", **QUICK).ask_all(ASKED * 10, max_tokens=5)
            == [Completion("safe", True)] * 30
        )


def test_a_server_that_never_answers_is_given_up():
    """Each request would take the whole budget: for 10,000 answers, four days."""
    quick = QUICK | {"timeout": 0.05, "workers": 4}
    start = time.monotonic()
    with (
        serving(lambda _: time.sleep(20)) as url,
        pytest.raises(LayeralignError, match=r"has not answered 4 requests.*the same command resumes"),
    ):
        Endpoint.of(url, "m", **quick).ask_all(ASKED * 100, max_tokens=5)
    assert time.monotonic() - start < 5


def drops(handler):
    handler.close_connection = True


def half(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b"{")
    handler.close_connection = True


@pytest.mark.parametrize("answer", [drops, half], ids=["drops", "half"])
def test_a_server_that_is_dead_behind_another_one_is_given_up(answer):
    """A container's port, or a tunnel, takes connections for it, so each request was tried to its end."""
    heard = []
    with (
        serving(lambda handler: (heard.append(1), answer(handler))) as url,
        pytest.raises(LayeralignError, match=r"has not answered 4 requests.*the same command resumes"),
    ):
        Endpoint.of(url, "m", **QUICK | {"workers": 4, "budget": 0.3}).ask_all(ASKED * 100, max_tokens=5)
    assert len(heard) < 20


def test_a_reply_that_no_reader_expects_is_an_invalid_try():
    def whole(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"[]")

    with serving(whole) as url:
        asked = Service(url, {}, **QUICK).ask_all("/x", [{}, {}], lambda answer: answer.json()["text"])
    assert [one.why.partition(",")[0] for one in asked] == ["the reply cannot be read (TypeError)"] * 2


@pytest.mark.parametrize("value", ["Ù¡", "ÿ"])  # a digit in UTF-8, and no UTF-8: sent as Latin-1
def test_a_pause_that_is_no_ascii_is_no_pause(value):
    def answer(handler):
        handler.send_response(429)
        handler.send_header("Retry-After", value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with serving(answer) as url:
        found = Endpoint.of(url, "m", **QUICK | {"budget": 0.1}).ask_all(ASKED, max_tokens=5)
    assert {one.why for one in found} == {"the server answered 429, 2 times or for 0 s"}


def test_no_cookie_is_kept():
    """Each request carried those of all replies before: 15 MB, and 4 GB of memory, after 250 replies."""
    carried = []

    def answer(handler):
        carried.append(handler.headers.get("Cookie"))
        handler.send_response(200)
        for number in range(20):
            handler.send_header("Set-Cookie", f"{len(carried)}_{number}={'x' * 1000}; Path=/")
        content = json.dumps(completion("safe")).encode()
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    with serving(answer) as url:
        found = Endpoint.of(url, "m", **QUICK).ask_all(ASKED, max_tokens=5)
    assert found == [Completion("safe", True)] * 3 and carried == [None] * 3


def test_a_few_requests_that_are_never_answered_are_invalid_tries():
    def answer(handler):
        if not hang:
            return says(json.dumps(completion("safe")).encode())(handler)
        hang.pop()
        time.sleep(2)

    hang = [1] * 2 * 3  # two attempts of each of three requests
    with serving(answer) as url:
        found = Endpoint.of(url, "m", **QUICK | {"timeout": 0.3, "workers": 4}).ask_all(ASKED, max_tokens=5)
        assert [type(one) for one in found] == [Failure] * 3
        assert Endpoint.of(url, "m", **QUICK).ask_all(ASKED, max_tokens=5) == [Completion("safe", True)] * 3


def test_a_dead_server_is_given_up_at_once_in_one_sentence():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(LayeralignError, match=r"cannot be reached, 2 times.*the same command resumes"):
        Endpoint.of(url, "m", **QUICK).ask_all(ASKED * 100, max_tokens=5)


@pytest.mark.parametrize("answer", [lambda _: time.sleep(20), broken], ids=["slow", "with a pause"])
def test_a_stop_does_not_wait_for_requests_in_flight(answer):
    with serving(answer) as url:
        asked = ((n, {}) for n in range(9))
        slow = Service(url, timeout=60, workers=4)
        replies = slow.ask_each("/chat/completions", stopped_after(4, asked), lambda _: Failure(""))
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(replies)
    assert time.monotonic() - start < 5


def stopped_after(number, asked):
    """The first ones, and soon after them Ctrl-C."""
    for _ in range(number):
        yield next(asked)
    time.sleep(0.5)
    raise KeyboardInterrupt


@contextmanager
def proxy():
    """A proxy that answers itself, and what it was sent."""
    heard = []

    def answer(handler):
        heard.append((handler.path, handler.headers.get("Authorization")))
        says(json.dumps(completion("safe")).encode())(handler)

    with serving(answer) as url:
        yield url.removesuffix("/v1"), heard


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_near_server_is_asked_without_a_proxy(host, monkeypatch):
    with proxy() as (address, heard):
        monkeypatch.setenv("HTTP_PROXY", address)
        monkeypatch.setenv("LAYERALIGN_API_KEY", "sk-planted")
        with pytest.raises(LayeralignError, match="cannot be reached"):
            Endpoint.of(f"http://{host}:9/v1", "m", **QUICK).ask_all(ASKED[:1], max_tokens=5)
        assert heard == []


def test_what_is_near():
    near = ["127.0.0.1", "10.0.0.1", "192.168.1.2", "[::1]", "[fe80::1]", "vllm", "a.local", "x.localhost"]
    near += [
        "localhost.localdomain",
        "localhost6.localdomain6",
        "LOCALHOST.LOCALDOMAIN.",
    ]  # of Fedora and RHEL
    near += ["127.1", "0x7f.1", "0177.0.0.1", "localhost.", "127.0.0.1.", "127\u30020\u30020\u30021", "10.1"]
    assert not any(Service(f"https://{host}").proxied for host in near)
    assert Service("https://8.8.8.8").proxied and Service("https://judge.example.com").proxied


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "nonsense://a", "http://[::1"])
def test_a_proxy_that_cannot_be_used_is_one_sentence(proxy, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(LayeralignError, match="the proxy of the environment cannot be used"):
        Endpoint.of("https://judge.example.com/v1", "m", **QUICK).ask_all(ASKED[:1])


def test_a_key_never_goes_through_a_proxy_in_clear(monkeypatch):
    with proxy() as (address, heard):
        monkeypatch.setenv("HTTP_PROXY", address)
        found = Endpoint.of("http://judge.example.com/v1", "m", **QUICK).ask_all(ASKED[:1], max_tokens=5)
        assert found == [Completion("safe", True)] and heard[0][1] is None  # no key: the proxy may be used
        monkeypatch.setenv("LAYERALIGN_API_KEY", "sk-planted")
        with pytest.raises(LayeralignError, match="cannot be reached"):
            Endpoint.of("http://judge.example.com/v1", "m", **QUICK).ask_all(ASKED[:1], max_tokens=5)
        assert len(heard) == 1
    assert Service("https://judge.example.com", {"a": "b"}).proxied


@pytest.mark.parametrize("url", ["http://a/v1#sk-1", "http://a/v1?key=sk-1", "http://u:sk-1@a/v1"])
def test_a_key_in_the_address_is_refused_and_not_shown(url):
    with pytest.raises(LayeralignError, match="contains credentials") as error:
        address(url, "LAYERALIGN_API_KEY")
    assert "sk-1" not in str(error.value)


@pytest.mark.parametrize("url", [
    "http://[::1", "http://a:99999/v1", "http://a:b/v1", "http://xn--a/v1", "http://a\u2028b/v1", "http://a/\0",
    f"http://a/{'b' * 70_000}",
])  # fmt: skip
def test_an_address_that_is_none_is_one_sentence(url):
    with pytest.raises(LayeralignError, match=r"expected an address such as|is no valid address") as error:
        Endpoint.of(url, "m", **QUICK).ask_all(ASKED[:1])
    assert str(error.value).isprintable() and len(str(error.value)) < 200


def test_replies_are_read_from_a_loop_that_runs_already():
    """As in a notebook, whose cells run inside an event loop."""
    import asyncio

    async def cell():
        with serving(says(json.dumps(completion("safe")).encode())) as url:
            return Endpoint.of(url, "m", **QUICK).ask_all(ASKED, max_tokens=5)

    assert asyncio.run(cell()) == [Completion("safe", True)] * 3
    assert content.MAX_BYTES == 16 * 2**20
