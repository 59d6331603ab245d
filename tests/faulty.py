"""A server on this machine that keeps the contract of an API that judges are asked of, and breaks it in every way;
and runs whose answers it has to be asked about.
"""

import json
import random
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from layeralign.cases.case import Case
from layeralign.runs.opening import create
from layeralign.runs.store import Row

QUICK = {"attempts": 12, "slowest": 0.004, "timeout": 0.25, "budget": 20.0}
PLANTED = "sk-planted-0123456789"


class Server(ThreadingHTTPServer):
    """Replies as its API does, and fails in a share of the requests.

    `status` is what it answers to everything, with a planted key in the body; `keys` are those that it was sent.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, api, faults=0.0, status=None, seed=0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.api, self.faults, self.status = api, faults, status
        self.rng, self.lock = random.Random(seed), threading.Lock()
        self.asked = self.failed = 0
        self.keys, self.starts = set(), []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}{self.api.base}"

    def handle_error(self, *_):
        pass  # a client that gave up


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.asked += 1
            server.starts.append(time.monotonic())
            server.keys.add(self.headers.get(server.api.key))
            failing = server.rng.random() < server.faults
            fault = server.rng.choice([*FAULTS, *server.api.broken]) if failing else None
            server.failed += failing
        server.api.check(self.path, body)
        if server.status:
            return self.say(server.status, {"error": {"message": f"key {PLANTED} is wrong"}})
        if callable(fault):
            return fault(self)
        if fault is not None:
            return self.say(200, fault)
        return self.say(*server.api.reply(body))

    def say(self, status, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def drop(handler):
    handler.close_connection = True
    handler.connection.close()


def cut(handler):
    """Half an answer, then the connection ends."""
    handler.send_response(200)
    handler.send_header("Content-Length", "500")
    handler.end_headers()
    handler.wfile.write(handler.server.api.half)
    handler.close_connection = True


def packed(handler):
    """A reply that says it is packed, and is not."""
    handler.say(200, b'{"safe": 0.0}', [("Content-Encoding", "gzip")])


FAULTS = (
    lambda handler: handler.say(429, {"error": {"message": "slow down"}}, [("Retry-After", "0.001")]),
    lambda handler: handler.say(
        429, {"error": {"code": "insufficient_quota"}}, [("Retry-After", "Wed, 21 Oct")]
    ),
    lambda handler: handler.say(500, b"safe"),
    lambda handler: handler.say(502, b"<html>safe</html>"),
    lambda handler: handler.say(503, b""),
    drop,
    cut,
    packed,
    lambda handler: time.sleep(0.3) if handler.server.rng.random() < 0.02 else handler.say(504, b""),
)
"""What any server may do."""


SAID = {
    "llama-guard": ("\n\nsafe", "\n\nunsafe\nS2"),
    "qwen3guard": (
        "Safety: Safe\nCategories: None\nRefusal: Yes", "Safety: Unsafe\nCategories: Violent\nRefusal: No"
    ),
    "wildguard": (
        "Harmful request: yes\nResponse refusal: yes\nHarmful response: no",
        "Harmful request: yes\nResponse refusal: no\nHarmful response: yes",
    ),
    "nemotron-safety": (
        "User Safety: unsafe\nResponse Safety: safe\nSafety Categories: Violence",
        "User Safety: unsafe\nResponse Safety: unsafe\nSafety Categories: Violence",
    ),
    "harmbench": ("No", "Yes"),
    "granite-guardian": ("<think>\n</think>\n<score>no</score>", "<think>\n</think>\n<score>yes</score>"),
}  # fmt: skip
"""What guards say of a safe and of an unsafe answer, by the beginning of their kind."""


def said_by(kind):
    return next(said for name, said in SAID.items() if kind.startswith(name))


class OpenAI:
    """Completions; says `unsafe`, as a guard of this kind does, where what it is asked about holds `bad`.

    `heard` has the bodies of all requests.
    """

    base, key = "/v1", "Authorization"
    half = b'{"choices": [{"message": {"content": "safe"'
    broken = (b"safe", b"{}", {"choices": []}, [1])

    def __init__(self, kind="llama-guard"):
        self.said, self.heard = said_by(kind), []

    def check(self, path, body):
        assert path == ("/v1/completions" if "prompt" in body else "/v1/chat/completions")
        assert body["temperature"] == 0 and body["max_tokens"] > 0
        self.heard.append(body)

    def reply(self, body):
        text = self.said["bad" in texts_of(body)]
        return 200, completion(text, "length" if body["max_tokens"] == 1 else "stop")


def texts_of(body):
    """All texts of a request, without its pictures."""
    if "prompt" in body:
        return body["prompt"]
    contents = [turn["content"] for turn in body["messages"]]
    parts = [[{"text": content}] if isinstance(content, str) else content for content in contents]
    return "\n".join(part["text"] for content in parts for part in content if "text" in part)


def completion(text, end="stop"):
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message, "text": text, "finish_reason": end}]}


class Perspective:
    """`comments:analyze`; 0.875 where the comment holds `bad`, else 0.125.

    `says` is what it answers to everything, `first` what it answers to the first request.
    """

    base, path, key = "", "/v1alpha1/comments:analyze", "x-goog-api-key"
    half = b'{"attributeScores": {"TOXICITY": {"summaryScore": {"value": 0.0'
    broken = (
        b"0.0", b"{}", {"attributeScores": {}}, [0.0],
        *({"attributeScores": {"TOXICITY": {"summaryScore": {"value": value}}}} for value in (None, "0.0", 1.5, -1)),
        b'{"attributeScores": {"TOXICITY": {"summaryScore": {"value": NaN, "type": "PROBABILITY"}}}}',
        {"attributeScores": {"SPAM": {"summaryScore": {"value": 0.0, "type": "PROBABILITY"}}}},
    )  # fmt: skip

    def __init__(self, says=None, first=None):
        self.says, self.first, self.heard = says, first, []

    def check(self, path, body):
        assert path == self.path, "no key in the address"
        assert body["doNotStore"] is True and body["languages"] == ["en"]
        assert list(body["requestedAttributes"]) == ["TOXICITY"]

    def reply(self, body):
        self.heard.append(body)
        if self.first:
            first, self.first = self.first, None
            return first
        if self.says:
            return self.says
        share = 0.875 if "bad" in body["comment"]["text"] else 0.125
        score = {"value": share, "type": "PROBABILITY"}
        spans = [{"begin": 0, "end": len(body["comment"]["text"]), "score": score}]
        return 200, {
            "attributeScores": {"TOXICITY": {"spanScores": spans, "summaryScore": score}}, "languages": ["en"],
            "detectedLanguages": ["en"],
        }  # fmt: skip


def serving(api, **settings):
    """A running server of an API."""
    return running(Server(api, **settings))


@contextmanager
def running(server):
    """A server while it answers."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def a_run(folder, n, *, benign=0):
    """A run whose every third answer is bad; its answers are at exits 0 to 3."""
    run = create(folder, "model", {"x": 1}, {"layers": 3, "default": 3})
    cases = [Case(f"h{i}", f"how {i}?", "harmful") for i in range(n // 4)]
    run.add_cases([*cases, *(Case(f"b{i}", "hi", "benign") for i in range(benign))])
    run.add_answers(
        Row(case.id, exit, f"answer {i} {'bad' if (4 * i + exit) % 3 == 0 else 'good'}", 3, "stop")
        for i, case in enumerate(cases)
        for exit in range(4)
    )
    run.add_answers(Row(f"b{i}", 3, "bad", 1, "stop") for i in range(benign))
    return run


def verdicts(run):
    rows = ((row, said) for row in run.rows() for said in row["verdicts"].values())
    return {(row["case"], row["exit"]): said["verdict"] for row, said in rows}


def no_key_in(folder):
    """Nothing in a folder holds the planted key."""
    for file in folder.rglob("*"):
        assert not file.is_file() or PLANTED.encode() not in file.read_bytes(), file
