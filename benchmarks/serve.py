"""The server under 100 clients: right answers, errors, memory, and its throughput against a scan's.

    python benchmarks/serve.py --minutes 3 > benchmarks/results/serve.md
    python benchmarks/serve.py --model natural --cases 30 --exits 0,6,9,11 --minutes 1

The cases are the testbed's, each with a picture of its own, at four exits. In turns, `scan` answers some of them, and
the clients, threads of another process, ask the server each of these once; medians of the rounds, each with other
cases, since the server keeps the features of pictures. Then the clients ask about all of them for the rest of the
time. Every answer is compared with the scan's. The server is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.client import HTTPConnection
from itertools import count, islice
from pathlib import Path

CLIENTS, LONGEST = 100, 24


def groups(model: str, n: int, rounds: int) -> list[list]:
    """`n` cases for each round."""
    from layeralign.benchmarks import cases

    found = cases(f"{model}:dev", limit=n * rounds)
    return [found[number::rounds] for number in range(rounds)]


def bodies(model: str, cases: list, exits: list[int]) -> list[tuple[tuple[str, int], bytes]]:
    """Every case at every exit, in the scan's order: its key and its request."""
    from layeralign.cases.pictures import data_url

    found = []
    for case in cases:
        image = {"type": "image_url", "image_url": {"url": data_url(case.picture.open(), "PNG")}}
        content = [image, {"type": "text", "text": case.prompt}]
        for exit in exits:
            given = {"model": f"{model}@{exit}", "messages": [{"role": "user", "content": content}]}
            found.append(((case.id, exit), json.dumps(given | {"max_tokens": LONGEST}).encode()))
    return found


def scan(model: str, cases: list, exits: list[int], folder: Path) -> tuple[dict[tuple[str, int], str], float]:
    """The scan's answers, and answers per second while it answers (its session's time, without loading)."""
    import layeralign
    from layeralign.analysis.results import Results
    from layeralign.runs.opening import open_run
    from layeralign.sweep import rate

    layeralign.scan(model, cases, folder, exits=exits, max_new_tokens=LONGEST)
    with open_run(folder) as run:
        speed = rate.of(run)
    return {key[:2]: answer for key, answer in Results.load(folder).answers.items()}, speed


def load(port: int, asked: list, known: dict, seconds: float | None) -> tuple[int, int, int, float]:
    """Let 100 clients ask; returns requests, errors, other answers, and requests per second."""
    end = time.monotonic() + (seconds or 1e9)
    order = islice(count(), len(asked)) if seconds is None else count()
    wrong, errors, done = [], [], []

    def client(_: int) -> None:
        http = HTTPConnection("127.0.0.1", port, timeout=120)  # a cheap client: it shares the server's cores
        for at in order:  # an iterator in C: each number goes to one thread
            if time.monotonic() > end:
                break
            key, body = asked[at % len(asked)]
            http.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
            reply = http.getresponse()
            content = json.loads(reply.read())
            done.append(key)
            if reply.status != 200:
                errors.append(content)
            elif content["choices"][0]["message"]["content"] != known[key]:
                wrong.append(key)
        http.close()

    start = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(client, range(CLIENTS)))
    return len(done), len(errors), len(wrong), len(done) / (time.monotonic() - start)


def serve(model: str, folder: Path) -> tuple[subprocess.Popen, int]:
    """Start a server on a free port."""
    log = (folder / "server.log").open("w")
    command = [sys.executable, "-m", "layeralign", "serve", "--model", model, "--port", "0"]
    server = subprocess.Popen(command, stderr=log)
    while "serving" not in (text := (folder / "server.log").read_text()):
        assert server.poll() is None, text
        time.sleep(0.2)
    return server, int(text.rpartition(":")[0].rpartition(":")[2].partition("/")[0])


def memory(pid: int) -> float:
    """Resident memory in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Print the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="testbed", choices=("testbed", "natural"))
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--exits", default="0,3,5,7")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=3)
    given = parser.parse_args()
    model, exits = given.model, [int(one) for one in given.exits.split(",")]
    warm, *parts = groups(model, given.cases, given.rounds + 1)
    asked = bodies(model, warm, exits)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        server, port = serve(model, folder)
        try:
            known, _ = scan(model, warm, exits, folder / "first")
            load(port, asked[:CLIENTS], known, None)  # the first batch is slow
            scans, served, total, errors, wrong = [], [], 0, 0, 0
            for at, part in enumerate(parts):
                found, speed = scan(model, part, exits, folder / f"run{at}")
                known |= found
                scans.append(speed)
                new = bodies(model, part, exits)
                asked += new
                *some, speed = load(port, new, known, None)
                served.append(speed)
                total, errors, wrong = total + some[0], errors + some[1], wrong + some[2]
            used = [memory(server.pid)]
            for _ in range(4):
                *some, speed = load(port, asked, known, 15 * given.minutes)
                used.append(memory(server.pid))
                total, errors, wrong = total + some[0], errors + some[1], wrong + some[2]
        finally:
            server.terminate()
            code = server.wait(60)
    busy = os.getloadavg()[0] > os.cpu_count() * 1.5
    print("# The server under load\n")
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores"
        f"{', beside other work' if busy else ''}: `python benchmarks/serve.py {' '.join(sys.argv[1:])}`. "
        f"{CLIENTS} clients at once, {given.cases} cases a round of the {'natural testbed' if model == 'natural' else model} at exits {given.exits}, "
        "each case with a picture of its own; clients and server share the cores. The server ended with exit code "
        f"{code} (SIGTERM).\n"
    )
    print("| | |\n|---|---|")
    print(f"| requests | {total:,} |\n| errors | {errors} |\n| answers other than the scan's | {wrong} |")
    print(f"| answers per second, scan | {', '.join(f'{one:.1f}' for one in scans)} |")
    print(f"| answers per second, server | {', '.join(f'{one:.1f}' for one in served)} |")
    print(f"| server / scan, medians | {statistics.median(served) / statistics.median(scans):.2f} |")
    print(f"| memory of the server over the requests, MiB | {', '.join(f'{one:.0f}' for one in used)} |")


if __name__ == "__main__":
    main()
