"""A server on this machine that keeps vLLM's documented contract, with a model of this process."""

import base64
import io
import json
import threading
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from faulty import running
from layeralign.decode.decoding import Decoding
from layeralign.decode.stream import respond
from layeralign.vlm.feature import Feature


def embeds(body):
    """Whether a request gives features."""
    return any(part["type"] == "image_embeds" for part in body["messages"][-1]["content"])


@contextmanager
def adapted(vlm, weights, scale):
    """The model with a LoRA adapter in its weights, until the context ends."""
    own = {}
    for name in [name for name in weights if name.endswith(".lora_A.weight")]:
        layer = vlm.model.get_submodule(name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
        own[layer] = layer.weight.data
        delta = weights[name.replace("lora_A", "lora_B")] @ weights[name] * scale
        layer.weight.data = own[layer] + delta.to(own[layer].dtype)
    try:
        yield
    finally:
        for layer, weight in own.items():
            layer.weight.data = weight


class Vllm(ThreadingHTTPServer):
    """Answers with `vlm`, from picture features or, at exit `layer`, from a picture.

    Attributes:
        layer: The exit of pictures.
        ids: What becomes of a prompt's ids before they are read.
        features: Whether it takes features.
        broken: Number of a request -> a status, bytes or an object that it is answered with instead.
        dies_after: Number of answered requests after which the server closes each connection.
        bodies: The requests' bodies.
        pictures: Text -> features; a dict makes it answer from the picture that it saw with a text.
        becomes: Number of a request, and the model from it on.
        adapters: Name -> weights and scale of each adapter that was loaded, until it is unloaded.
        loads: Names of all adapters that were loaded.
        lora: Whether adapters can be loaded, and `ignores` whether they then change nothing.
        hangs: An event; each request waits for it, and is then closed without an answer.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, vlm, models=("m",), version="0.32.0"):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.vlm, self.models, self.version = vlm, models, version
        self.layer, self.ids, self.features, self.longest = vlm.exits.default, list, True, 256
        self.broken, self.dies_after, self.bodies, self.lock = {}, None, [], threading.Lock()
        self.pictures = self.becomes = self.hangs = None
        self.adapters, self.loads, self.lora, self.ignores = {}, [], True, False

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *_):
        pass  # a client that gave up

    def adapter(self, path, body):
        """The status of a request to load or to unload an adapter."""
        name, known = body["lora_name"], body["lora_name"] in self.adapters
        if not self.lora:
            return 404
        if path == "/v1/unload_lora_adapter":
            return 200 if self.adapters.pop(name, None) else 404
        folder = Path(body["lora_path"])
        if known or not (folder / "adapter_config.json").is_file():
            return 400 if known else 404
        config = json.loads((folder / "adapter_config.json").read_text())
        scale = config["lora_alpha"] / config["r"]
        self.adapters[name] = load_file(folder / "adapter_model.safetensors"), scale
        self.loads.append(name)
        return 200

    def answer(self, body):
        """The reply to a chat completion."""
        known = self.adapters.get(body["model"])
        assert known or body["model"] in self.models
        with adapted(self.vlm, *known) if known and not self.ignores else nullcontext():
            return self._answer(body)

    def _answer(self, body):
        turns, text, feature = [], "", None
        if self.becomes and len(self.bodies) > self.becomes[0]:
            self.vlm = self.becomes[1]
        for one in body["messages"]:
            if one["role"] == "system":
                continue
            kinds = [
                {"type": "text"} if part["type"] == "text" else {"type": "image"} for part in one["content"]
            ]
            kinds[-1]["text"] = one["content"][-1]["text"]
            turns.append({"role": one["role"], "content": kinds})
        for part in (part for one in body["messages"] if one["role"] != "system" for part in one["content"]):
            if part["type"] == "text":
                text = part["text"]
            elif part["type"] == "image_url":
                coded = part["image_url"]["url"].partition(",")[2]
                picture = Image.open(io.BytesIO(base64.b64decode(coded)))
                feature = self.vlm.encode([picture], [self.layer])[self.layer][0]
            else:
                assert part["uuid"]
                tokens = torch.load(io.BytesIO(base64.b64decode(part["image_embeds"])), weights_only=True)
                feature = Feature(tokens, self.vlm.picture_token * len(tokens))
        if self.pictures is not None and feature is not None:
            feature = self.pictures.setdefault(text, feature)
        system = [one["content"] for one in body["messages"] if one["role"] == "system"]
        if system:
            turns.insert(0, {"role": "system", "content": [{"type": "text", "text": system[0]}]})
        ids = self.ids(self.vlm.tokens(self.vlm.conversation(turns, ""), feature))
        decoding = Decoding(
            max_new_tokens=body["max_tokens"], temperature=body["temperature"], top_p=body["top_p"]
        )
        seeds = [body["seed"]] if body["temperature"] else None
        allowed = body.get("allowed_token_ids") or range(len(self.vlm.head.weight))
        never = sorted(set(range(len(self.vlm.head.weight))).difference(allowed))
        (said,) = respond(self.vlm, [ids], [feature], decoding, seeds=seeds, suppressed=never)
        best = {"logprob": -0.1, "top_logprobs": [{"logprob": -0.1}, {"logprob": -9.0}]}
        choice = {"token_ids": list(said.tokens), "finish_reason": said.finish_reason}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [best for _ in said.tokens]}
        return {"prompt_token_ids": ids, "choices": [choice]}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        if self.path == "/version" and server.version:
            return self._say(200, {"version": server.version})
        if self.path == "/v1/models":
            each = [{"id": one, "root": one, "max_model_len": server.longest} for one in server.models]
            return self._say(200, {"object": "list", "data": each})
        return self._say(404, {})

    def do_POST(self):
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter"):
            with server.lock:
                return self._say(server.adapter(self.path, body), {})
        assert self.path == "/v1/chat/completions" and body["return_token_ids"]
        with server.lock:
            number = len(server.bodies)
            server.bodies.append(body)
            if server.dies_after is not None and number >= server.dies_after:
                self.close_connection = True
                return self.connection.close()
            given = server.broken.get(number)
        if server.hangs:
            server.hangs.wait()
            self.close_connection = True
            return self.connection.close()
        with server.lock:
            if isinstance(given, int):
                return self._say(given, {})
            if embeds(body) and not server.features:
                return self._say(400, {})
            return self._say(200, given if given is not None else server.answer(body))

    def _say(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def serving(vlm, **settings):
    """A running `Vllm`."""
    return running(Vllm(vlm, **settings))
