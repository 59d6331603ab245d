"""A running `layeralign serve`, and what its clients send and get."""

import json
import threading
from contextlib import contextmanager

import httpx

import layeralign
from layeralign import LayeralignError
from layeralign.analysis.results import Results
from layeralign.cases.pictures import data_url
from layeralign.decode.decoding import Decoding
from layeralign.serving.server import Server
from layeralign.testbed.cases import cases

EXITS = (0, 7)
SHORT = Decoding(max_new_tokens=24)
ASKED = cases("dev", 10)


def scan_answers(vlm, folder):
    """Case and exit -> the scan's answer to `ASKED` at `EXITS`."""
    layeralign.scan(vlm, ASKED, folder, exits=list(EXITS), max_new_tokens=24)
    return {key[:2]: answer for key, answer in Results.load(folder).answers.items()}


@contextmanager
def running(vlm, decoding=SHORT, **settings):
    """A server on a free port, and a client of it."""
    server = Server(vlm, decoding, port=0, **settings)
    ended = []

    def run():
        try:
            server.run()
        except LayeralignError as error:
            ended.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with httpx.Client(base_url=server.url, timeout=60, limits=httpx.Limits(max_connections=64)) as client:
            client.server, client.ended = server, ended
            yield client
    finally:
        server.http.should_exit = True
        thread.join()


def picture_part(url):
    return {"type": "image_url", "image_url": {"url": url}}


def body(case, exit=7, **more):
    content = [{"type": "text", "text": case.prompt}, picture_part(data_url(case.picture.open(), "PNG"))]
    return {"model": f"testbed@{exit}", "messages": [{"role": "user", "content": content}]} | more


def ask(client, given, **headers):
    return client.post("/chat/completions", json=given, headers=headers)


def text_of(response):
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]


def events(client, given):
    """What a stream sends: its objects, and the words of each answer."""
    found, words = [], {}
    with client.stream("POST", "/chat/completions", json=given | {"stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream"), response.read()
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    for line in lines[:-1]:
        found.append(json.loads(line))
        for choice in found[-1]["choices"]:
            words[choice["index"]] = words.get(choice["index"], "") + choice["delta"].get("content", "")
    return found, words
