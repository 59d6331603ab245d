"""Give layeralign hostile checkpoints, adapters, pictures, case files and judge servers, with a canary.

    python benchmarks/faults/hostile.py > benchmarks/results/hostile.md      # all of it, about 25 minutes
    python benchmarks/faults/hostile.py --only pictures --name FIFO

Each input is given to a command in a process of its own. It holds if the command works, or refuses in one sentence
with exit code 1; in 10 s of processor time, and in 1 GiB of memory beyond that of a good input. Code that came with
an input would create a file, the canary. Whatever does not hold is printed, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # threads do not outlive a fork
sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))

import torch
from hostile_inputs.files import CASE_FILES, CASES, PICTURE, PICTURES, ROW
from hostile_inputs.models import ADAPTERS, CHECKPOINTS
from hostile_inputs.servers import SERVERS
from peft import LoraConfig, get_peft_model

import drawn
import tiny
from faulty import QUICK
from layeralign import LayeralignError
from layeralign.cases.case import Case
from layeralign.cli import main as layeralign_cli
from layeralign.judges.guards.registry import GuardJudge
from layeralign.judges.models.remote import Endpoint
from layeralign.vlm.load import load
from test_service import serving

SECONDS, BYTES, WAIT = 10.0, 2**30, 300.0
"""Limits of an input: seconds of processor time, bytes beyond a good input, seconds until the process is killed."""
ALLOWED = 6 * 2**30
"""Address space of a process; more would harm the machine."""
SCAN = ["--exits", "default", "--max-new-tokens", "2", "--limit", "1"]


@dataclass(frozen=True)
class Outcome:
    """Exit code of a process (None if it was killed), its output, seconds of processor time, and peak memory."""

    code: int | None
    said: str
    seconds: float
    memory: int


def attempt(do: Callable[[], int], folder: Path) -> Outcome:
    """Run `do` in a forked process, in `folder`."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _run(do, folder)
    end, status, used = time.monotonic() + WAIT, None, None
    while used is None:
        found, status, seen = os.wait4(child, os.WNOHANG)
        used = seen if found else None
        if used is None and time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            _, status, used = os.wait4(child, 0)
        time.sleep(0.01)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    said = (folder / "said").read_text(errors="replace")
    return Outcome(code, said, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def _run(do: Callable[[], int], folder: Path) -> None:
    code = 99
    try:
        os.chdir(folder)
        sys.path.insert(0, "")  # as `python -m layeralign` in that folder
        file = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(file, stream)
        resource.setrlimit(resource.RLIMIT_AS, (ALLOWED, ALLOWED))
        code = do()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:
        os.write(2, f"Traceback: {error!r}".encode(errors="replace"))
    finally:
        os._exit(code)


@dataclass(frozen=True)
class Kind:
    """A kind of input: how a good one is made, the hostile ones, and the command that gets it.

    Attributes:
        good: makes a good input in a folder.
        inputs: name -> what makes it hostile; see `hostile_inputs`.
        command: returns the exit code, 1 for a refusal.
    """

    good: Callable[[Path], object]
    inputs: Mapping[str, Any]
    command: Callable[[Path], int]


def kinds(work: Path) -> dict[str, Kind]:
    """Every kind; models are made once, in `work`."""
    model, adapter = tiny.save("llava", work / "model"), work / "adapter"
    with contextlib.redirect_stderr(io.StringIO()):
        whole = load(model).model
        layers = [
            name
            for name, _ in whole.named_modules()
            if "language_model" in name and name.endswith(("q_proj", "v_proj"))
        ]
        get_peft_model(whole, LoraConfig(r=4, lora_alpha=8, target_modules=layers)).save_pretrained(
            str(adapter)
        )

    def copies(source: Path) -> Callable[[Path], object]:
        return lambda folder: shutil.copytree(source, folder / "given")

    def scan(folder: Path, *words: str) -> int:
        return layeralign_cli(["scan", "--cases", "testbed", *SCAN, "--out", str(folder / "run"), *words])

    def cases(folder: Path) -> int:
        return layeralign_cli(
            ["cases", str(next(iter(folder.glob("given/*.csv")), folder / "given" / CASES))]
        )

    return {
        "checkpoints": Kind(copies(model), CHECKPOINTS, lambda at: scan(at, "--model", str(at / "given"))),
        "adapters": Kind(
            copies(adapter),
            ADAPTERS,
            lambda at: scan(at, "--model", str(model), "--adapter", str(at / "given")),
        ),
        "pictures": Kind(a_case, PICTURES, cases),
        "case files": Kind(a_case, CASE_FILES, cases),
        "judge servers": Kind(lambda folder: None, SERVERS, lambda folder: 0),
    }


def a_case(folder: Path) -> None:
    """A good file of cases with a good picture."""
    (folder / "given").mkdir()
    (folder / "given" / PICTURE).write_bytes(drawn.KINDS["text.png"][0])
    (folder / "given" / CASES).write_text(json.dumps(ROW))


def ask(url: str) -> int:
    """Ask a judge's server; an invalid verdict is a refusal, and a verdict is none."""
    try:
        judge = GuardJudge(
            "llama-guard-3", "guard", Endpoint.of(url, "guard", **{**QUICK, "attempts": 3, "budget": 5.0})
        )
        found = judge.judge_all([(Case("h", "how?", "harmful"), "answer")] * 3)
    except LayeralignError as error:
        print(f"layeralign: {error}")
        return 1
    print(f"layeralign: {found[0].verdict}: {found[0].why}")
    return int(all(one.verdict == "invalid" for one in found))


def attempts(kind: Kind, part: str, work: Path) -> Iterator[tuple[str, Outcome]]:
    """Give each input to the command; the first, without a name, is a good one."""
    for at, name in enumerate(["", *(name for name in kind.inputs if part in name)]):
        folder = work / f"{at}"
        folder.mkdir()
        if kind.inputs is SERVERS:
            answer = SERVERS[name or "cut off"]
            with serving(answer) as url:
                yield name, attempt(lambda url=url: ask(url), folder)
        else:
            kind.good(folder)
            if name:
                kind.inputs[name](folder / "given", work / "canary")
            yield name, attempt(lambda folder=folder: kind.command(folder), folder)
        shutil.rmtree(folder)


def wrong(kind: Kind, outcome: Outcome, base: int) -> str:
    """Why an outcome does not hold; empty if it does."""
    last = (outcome.said.strip().splitlines() or [""])[-1]
    sentence = outcome.code == 1 and last.startswith("layeralign: ") and len(last) < 1000
    if outcome.code is None:
        return f"killed after {WAIT:.0f} s, or by the system"
    if "Traceback" in outcome.said or "a bug in layeralign" in outcome.said:
        return "a bug"
    if not sentence and (outcome.code != 0 or kind.inputs is SERVERS):
        return f"no sentence with exit code 1, but {outcome.code}"
    if outcome.seconds > SECONDS:
        return f"{outcome.seconds:.1f} s"
    return f"{(outcome.memory - base) >> 20} MiB" if outcome.memory - base > BYTES else ""


def tried(name: str, kind: Kind, part: str, work: Path) -> int:
    """Try all inputs of a kind, print its row; return how many do not hold."""
    counts, longest, most, base, bad = dict.fromkeys(("refused", "worked", "fired"), 0), 0.0, 0, 0, 0
    for given, outcome in attempts(kind, part, work):
        if not given:
            base = outcome.memory
            assert outcome.code == int(kind.inputs is SERVERS), outcome.said
            continue
        fired = (work / "canary").exists()
        (work / "canary").unlink(missing_ok=True)
        why = "the canary" if fired else wrong(kind, outcome, base)
        bad += bool(why)
        counts["fired"] += fired
        counts["refused"] += not why and outcome.code == 1
        counts["worked"] += not why and outcome.code == 0
        longest, most = max(longest, outcome.seconds), max(most, outcome.memory - base)
        print(
            f"{'FAILED' if why else 'held'} {name}: {given}: {why or outcome.seconds} {outcome.said[-300:].strip()}",
            file=sys.stderr,
        )
    total = sum(counts.values()) + bad - counts["fired"]
    print(
        f"| {name} | {total} | {counts['refused']} | {counts['worked']} | {bad} | {longest:.1f} | {most / 2**20:.0f} | {counts['fired']} |",
        flush=True,
    )
    return bad


def main() -> int:
    """Try everything, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], metavar="KIND", help="parts of the names of kinds")
    parser.add_argument("--name", default="", help="part of the names of inputs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"# Hostile inputs\n\n{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores: "
        f"`python {' '.join(['benchmarks/faults/hostile.py', *sys.argv[1:]])}`\n\n"
        "An input holds if the command works, or refuses it in one sentence with exit code 1; in 10 s of processor time, and in "
        "1 GiB beyond a good input. From a server, an invalid verdict is a refusal, and any other verdict does not hold.\n\n"
        "| input | tried | refused in one sentence | harmless, worked | did not hold | longest, s of processor time | most memory, MiB beyond a good input | canaries fired |\n|---|---|---|---|---|---|---|---|"
    )
    bad = 0
    with TemporaryDirectory() as folder:
        work = Path(folder)
        for name, kind in kinds(work).items():
            if any(part in name for part in arguments.only):
                (work / name).mkdir()
                bad += tried(name, kind, arguments.name, work / name)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
