"""Real processes that a test can kill.

A new interpreter takes seconds to import torch. `start` and `command` fork a process from a server that
has imported it and has run nothing, so that it begins as a new one does. `interpreter` starts a new one.
"""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from layeralign.cli import main

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload([
    "torch", "peft", "pytest", "layeralign.api", "layeralign.cli", "layeralign.training.train",
    "layeralign.report.terminal.summary", "transformers.models.auto.processing_auto",
    "transformers.models.llava.modeling_llava", "transformers.models.llama.modeling_llama",
    "transformers.models.clip.modeling_clip", "transformers.models.clip.image_processing_pil_clip",
])  # fmt: skip


class Child:
    """A process that was started; what it prints goes into the file `out`."""

    def __init__(self, process, out):
        self._out, self._process = Path(out), process

    def said(self):
        """What it has printed until now."""
        return self._out.read_text() if self._out.exists() else ""

    def poll(self):
        """Its exit code, -n where signal n ended it; None while it runs."""
        own = self._process
        return own.poll() if isinstance(own, subprocess.Popen) else own.exitcode

    def send(self, number):
        os.kill(self._process.pid, number)

    def wait(self, seconds=120):
        """Its exit code."""
        self._until(lambda: self.poll() is not None, seconds)
        return self.poll()

    def wait_for(self, seen, seconds=120):
        """Wait until `seen()` holds, while the process runs."""
        self._until(lambda: seen() or self.poll() is not None, seconds)
        assert self.poll() is None, f"it ended before it could be stopped: {self.said()}"

    def _until(self, done, seconds):
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, f"waited {seconds} s"
            time.sleep(0.005)


def start(function, *arguments, out=os.devnull):
    """A process that runs `function(*arguments)` in this environment; what it returns is its exit code."""
    process = _SERVER.Process(target=_run, args=(function, arguments, str(out), dict(os.environ)))
    process.daemon = True  # it does not outlive the tests
    process.start()
    return Child(process, out)


def command(*words, out=os.devnull):
    """A process of the command line."""
    return start(main, list(words), out=out)


def interpreter(*words, out=os.devnull):
    """A process of the command line in a new interpreter."""
    with Path(out).open("ab") as file:
        return Child(
            subprocess.Popen(
                [sys.executable, "-m", "layeralign", *words],
                stdout=file,
                stderr=file,
                preexec_fn=heed_signals,
            ),
            out,
        )


def heed_signals():
    """Undo what a shell does for a background job, and nohup: ignore SIGINT and SIGHUP."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _run(function, arguments, out, environment):
    gc.freeze()  # to look at the server's objects copies their memory
    heed_signals()
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.exit(function(*arguments))
