"""Serve a model until a signal stops the server."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

from layeralign._util import stopping
from layeralign._util.terminal import say
from layeralign._util.text import printable
from layeralign.decode import checks
from layeralign.decode.decoding import Decoding
from layeralign.errors import LayeralignError
from layeralign.runs.opening import identity_in
from layeralign.serving.limits import CONNECTIONS, DRAIN, KEY, LONGEST, SECONDS
from layeralign.serving.log import Log
from layeralign.serving.relay import Relay
from layeralign.serving.requests import Offer, served_name
from layeralign.serving.scheduler import Scheduler
from layeralign.sweep.sweep import Changed
from layeralign.sweep.vllm.server import Server as Vllm
from layeralign.vlm.vlm import Vlm

KEY_VARIABLE = "LAYERALIGN_API_KEY"
"""Environment variable with the key that clients need."""


class Server:
    """A model behind an endpoint; `run` serves until it is stopped.

    Attributes:
        url: The base URL of the API.
        http: The HTTP server; `http.should_exit = True` stops it from another thread.
    """

    def __init__(
        self,
        vlm: Vlm,
        decoding: Decoding,
        *,
        host: str = "127.0.0.1",
        port: int = 8001,
        log: Path | None = None,
        max_tokens: int = LONGEST,
        vllm: Vllm | None = None,
    ) -> None:
        """Check everything, listen, and open the log.

        Args:
            vlm: The model.
            decoding: Settings of a request that names no others.
            host: Address to listen at; one that other machines can reach needs a key.
            port: Port; 0 for any free one.
            log: Folder of the run that keeps every exchange.
            max_tokens: Largest length of an answer, in tokens.
            vllm: The vLLM server that computes the language model; None if this process does.

        Raises:
            LayeralignError: An argument is invalid, or a package is missing.
        """
        app, uvicorn = _libraries()
        if decoding.max_new_tokens > max_tokens:
            raise LayeralignError(
                f"max_new_tokens {decoding.max_new_tokens}: expected at most max_tokens, {max_tokens}"
            )
        known = identity_in(log).get("decoding", {}).get("date", "") if log else ""
        decoding = checks.dated(vlm, decoding, known, time.strftime("%Y-%m-%d"))
        for note in checks.check(vlm, [], decoding):
            say(printable(f"note: {note}"), stderr=True)
        for picture in (False, True):
            checks.check_template(vlm, decoding, picture=picture)
        self._relay = Relay(vlm, vllm, decoding) if vllm else None
        self._socket, loopback = _listen(host, port)
        self._log = None
        try:
            key = _key(host, loopback=loopback)
            engine = self._relay.record() if self._relay else None
            self._log = Log(vlm, log, decoding, engine) if log else None
            offer = Offer(served_name(vlm.checkpoint.name), vlm.exits, decoding, max_tokens)
            store = self._log.add if self._log else None
            self._scheduler = Scheduler(vlm, decoding, max_tokens, store, self._relay)
            hosts = ("localhost", "127.0.0.1", "::1", host) if loopback else ()
            api = app.Api(offer, self._scheduler, key, hosts, self._can_answer, SECONDS)
            self.http = uvicorn.Server(
                uvicorn.Config(
                    api.app(),
                    http="h11",
                    ws="none",
                    lifespan="off",
                    access_log=False,
                    log_level="critical",
                    log_config=None,
                    server_header=False,
                    limit_concurrency=CONNECTIONS,
                    timeout_graceful_shutdown=DRAIN,
                )
            )
            address = f"[{host}]" if ":" in host else host
            self.url = f"http://{address}:{self._socket.getsockname()[1]}/v1"
            self._told = (
                f"serving {offer.name} at {self.url}: {len(offer.exits.all)} exits, as {offer.name}@EXIT"
            )
        except BaseException:
            self._socket.close()
            if self._log:
                self._log.close()
            raise

    def _can_answer(self) -> bool:
        return self._log is None or not self._log.failed

    def run(self) -> None:
        """Serve until the server is stopped; answers that are being generated are given first.

        Raises:
            LayeralignError: The log could not be written, or the engine was changed.
        """
        try:
            say(printable(self._told), stderr=True)
            with stopping.passed(signal.SIGHUP, self.http.handle_exit):  # uvicorn handles the others
                self.http.run(sockets=[self._socket])
        finally:  # a signal is an exception here
            self._close()

    def _close(self) -> None:
        self._socket.close()
        wrong = None
        try:
            self._scheduler.close()
            if self._relay:
                self._relay.again()
        except LayeralignError as error:
            wrong = error
        finally:  # also at another signal, else the log's thread would wait for ever
            if self._log:
                self._log.close(str(wrong) if isinstance(wrong, Changed) else "")
        if wrong:
            raise wrong
        if not self._can_answer():
            raise LayeralignError(
                "serve: the log could not be written or judged to its end, as said above; correct that, then "
                "run layeralign judge on its folder"
            )


def _libraries() -> tuple[Any, Any]:
    try:
        import uvicorn

        from layeralign.serving import app
    except ImportError as error:
        raise LayeralignError(
            f"serve: needs the package {error.name}; run pip install 'layeralign[serve]'"
        ) from error
    return app, uvicorn


def _listen(host: str, port: int) -> tuple[socket.socket, bool]:
    """Listen at an address; also return whether only this machine can reach it."""
    if not 0 <= port <= 65535:
        raise LayeralignError(f"port {port}: expected 0 (any free port) to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(host or "127.0.0.1", port, type=socket.SOCK_STREAM)[0]
        loopback = ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback
        made = socket.create_server(address, family=family, backlog=CONNECTIONS)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", "") or error
        raise LayeralignError(
            f"host {printable(host, 80)}, port {port}: cannot listen there ({why}); name another --port"
        ) from error
    return made, loopback


def _key(host: str, *, loopback: bool) -> str:
    key = os.environ.get(KEY_VARIABLE, "")
    if not key and not loopback:
        raise LayeralignError(
            f"host {printable(host, 80)}: other machines can reach it, so clients need a key; set "
            f"{KEY_VARIABLE} to a secret of at least {KEY} characters, or leave --host out"
        )
    if key and (len(key) < KEY or not key.isascii()):
        raise LayeralignError(f"{KEY_VARIABLE}: expected at least {KEY} characters, all of them ASCII")
    return key
