"""Fuzz every parser of bytes that another person wrote, guided by coverage.

    python benchmarks/faults/fuzz.py --minutes 60 > benchmarks/results/fuzz.md
    python benchmarks/faults/fuzz.py --only policy exits --seconds 30

The processor time is shared equally over the targets (fuzz_targets), each in a process of its own; a busy machine
only takes longer. Only `LayeralignError` may leave a parser. Any other exception, 10 s of processor time for one
input, 600 s of waiting, or 2 GiB of memory is a crash; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import random
import re
import signal
import subprocess
import sys
import warnings
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))

INSTRUMENTED = ["layeralign", "yaml", "gguf"]
"""Packages whose coverage guides the search: ours, and parsers in Python that read the bytes for us."""
SECONDS = 10
"""Processor time that one input may take."""
LIMITS = ["-timeout=600", "-rss_limit_mb=2048", "-print_final_stats=1"]
ODD = [None, True, 0, -1, 2**63, 10**9, 0.5, 1e308, float("nan"), "", "\ud800", "a" * 300, "(a+)+$", [], {}, [[]], [1], {"a": {}}]  # fmt: skip
"""Values that replace those of a JSON document."""


def main() -> int:
    """Fuzz the targets one after the other, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="processor time of all targets")
    parser.add_argument("--seconds", type=float, help="of each target, instead of --minutes")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="TARGET", help="parts of the names of targets"
    )
    parser.add_argument("--child", nargs=3, metavar=("TARGET", "FOLDER", "SECONDS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print(
            "fuzz: needs atheris, which layeralign does not depend on; pip install atheris==3.0.0",
            file=sys.stderr,
        )
        return 1
    from fuzz_targets import TARGETS

    if arguments.child:
        fuzz(arguments.child[0], Path(arguments.child[1]), int(arguments.child[2]))
    names = [name for name in TARGETS if any(part in name for part in arguments.only)]
    if not names:
        print(f"fuzz: no such target; expected {', '.join(TARGETS)}", file=sys.stderr)
        return 1
    seconds = round(arguments.seconds or 60 * arguments.minutes / len(names))
    print(
        f"# Fuzzing\n\n{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}: `python {' '.join(['benchmarks/faults/fuzz.py', *sys.argv[1:]])}`, {seconds} s of "
        "processor time for each target. *Coverage* counts edges of the instrumented Python code.\n\n"
        "| target | executions | coverage | crashes |\n|---|---|---|---|"
    )
    found = [told(name, seconds) for name in names]
    print(
        f"\n{sum(one.runs for one in found):,} executions, {sum(bool(one.crash) for one in found)} crashes."
    )
    return int(any(one.crash for one in found))


@dataclass(frozen=True)
class Found:
    """Outcome of a target: executions, edges of code, and its crash, if there was one."""

    runs: int
    edges: int
    crash: str


def told(name: str, seconds: int) -> Found:
    """Fuzz a target in a child process; print its row, and progress on stderr."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        command = [sys.executable, __file__, "--child", name, folder, str(seconds)]
        process = subprocess.run(command, capture_output=True, check=False)
        said = (process.stdout + process.stderr).decode(errors="replace")
        crash = _crash(said, Path(folder), process.returncode)
    runs, edges = (_last(pattern, said) for pattern in (r"number_of_executed_units:\s+(\d+)", r"cov: (\d+)"))
    print(f"{name}: {runs:,} executions, coverage {edges:,}{f', {crash}' if crash else ''}", file=sys.stderr)
    print(f"| {name} | {runs:,} | {edges:,} | {crash or 'none'} |", flush=True)
    return Found(runs, edges, crash)


def _last(pattern: str, said: str) -> int:
    return int((re.findall(pattern, said) or ["0"])[-1])


def _crash(said: str, folder: Path, code: int) -> str:
    """The name of the crash and the hash of its input; the input and the traceback go to stderr."""
    inputs = sorted(folder.glob("artifact-*"))
    if code == 0 and not inputs:
        return ""
    name = re.search(r"Uncaught Python exception: ===\s+([\w.]+)", said)
    fault = re.search(r"ERROR: libFuzzer: ([\w -]+)", said)
    kind = name[1] if name else fault[1].strip() if fault else f"exit code {code}"
    print(said[said.find(" === Uncaught") :][:4000] if name else said[-3000:], file=sys.stderr)
    if not inputs:
        return kind
    content = inputs[0].read_bytes()
    print(f"input, base64: {b64encode(content).decode()}", file=sys.stderr)
    return f"{kind} (input {hashlib.sha256(content).hexdigest()[:16]})"


def fuzz(name: str, folder: Path, seconds: int) -> None:
    """Fuzz a target in this process; never returns."""
    import atheris
    from fuzz_targets import TARGETS

    from layeralign import LayeralignError

    warnings.simplefilter("ignore")
    corpus, work = folder / "corpus", folder / "work"
    corpus.mkdir()
    work.mkdir()
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        seeds, do = TARGETS[name](work)

        def once(data: bytes) -> None:
            started = used()
            with contextlib.suppress(LayeralignError):
                do(data)
            if used() - started > SECONDS:
                raise TimeoutError(f"an input took {used() - started:.0f} s")

        for at, seed in enumerate(seeds):
            once(seed)  # imports what is imported late
            (corpus / str(at)).write_bytes(seed)
    words = {word for seed in seeds for word in re.findall(rb"[\w.:-]{2,40}", seed)}
    (folder / "words").write_text(
        "".join(f'"{word.decode("latin1")}"\n' for word in sorted(words) if word.isascii())
    )
    end = used() + seconds

    def until_the_end(data: bytes) -> None:
        once(data)
        if used() > end:
            os.kill(os.getpid(), signal.SIGUSR1)  # libFuzzer prints its figures and ends

    flags = [f"-artifact_prefix={folder}/artifact-", *LIMITS]
    if words:  # libFuzzer refuses an empty dictionary
        flags.append(f"-dict={folder}/words")
    atheris.Setup([sys.argv[0], str(corpus), *flags], until_the_end, custom_mutator=mutated)
    atheris.Fuzz()


def used() -> float:
    """Processor time of this process and its children, in seconds."""
    return sum(os.times()[:4])


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """Change bytes, or one value of a JSON document or of one of its lines."""
    import atheris

    rng = random.Random(seed)
    if rng.random() < 0.5:
        return bytes(atheris.Mutate(data, most))
    lines = [data] if rng.random() < 0.5 else data.split(b"\n")
    at = rng.randrange(len(lines))
    try:
        lines[at] = json.dumps(changed(json.loads(lines[at]), rng)).encode()
    except (ValueError, RecursionError):
        return bytes(atheris.Mutate(data, most))
    return b"\n".join(lines)[:most]


def changed(document: Any, rng: random.Random) -> Any:
    """Replace, copy or remove a random part of a JSON document."""
    whole = [document]
    parts = list(places(whole))
    holder, key = rng.choice(parts)
    other, name = rng.choice(parts)
    action = rng.randrange(4)
    if action == 0 and holder is not whole:
        del holder[key]
    elif action == 1:
        holder[key] = json.loads(json.dumps(other[name]))
    elif action == 2 and isinstance(holder, dict):
        holder[str(rng.choice([name, *map(str, ODD)]))] = rng.choice(ODD)
    else:
        holder[key] = rng.choice(ODD)
    return whole[0] if whole else None


def places(holder: Any) -> Iterator[tuple[Any, Any]]:
    """Every part of a document, as what holds it and its key."""
    keys: Sequence[Any] = list(holder) if isinstance(holder, dict) else range(len(holder))
    for key in keys:
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from places(holder[key])


if __name__ == "__main__":
    sys.exit(main())
