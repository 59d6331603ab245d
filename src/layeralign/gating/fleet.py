"""Several servers at once: those of one target, or those that a fleet's YAML file lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from layeralign._util import strict_yaml
from layeralign._util.text import printable
from layeralign._util.validation import Filled, Record, validated
from layeralign.analysis.results import Results
from layeralign.errors import LayeralignError
from layeralign.gating import render
from layeralign.gating.checks import WORST_FIRST, Result
from layeralign.gating.deployed import Deployed, check
from layeralign.gating.evaluate import EXIT_CODES
from layeralign.gating.policy import read as read_policy


@dataclass(frozen=True)
class ServerResult:
    """What `check` says of one server.

    Attributes:
        result: pass, fail or inconclusive.
        server: the target, with the container or the line.
        runtime: the runtime, with its version if that is known; empty for a config alone.
        key: the key that sets the exit, with its value; empty where it is not known.
        blocks: the number of blocks whose output reaches the projector; None where it is not known.
        exit: the exit's name; None where it is not known.
        why: what the run says of that exit, or why it says nothing.
        caution: what a reader must know of the run first; may be empty.
    """

    result: Result
    server: str
    runtime: str
    key: str
    blocks: int | None
    exit: str | None
    why: str
    caution: str = ""


@dataclass(frozen=True)
class Fleet:
    """The results of several servers, in their own order."""

    servers: tuple[Deployed, ...]

    @property
    def result(self) -> Result:
        """The worst result: a failed server, then an inconclusive one."""
        return min((one.result for one in self.servers), key=WORST_FIRST.index)

    @property
    def exit_code(self) -> int:
        """The exit code of the process, as for a gate."""
        return EXIT_CODES[self.result]

    @property
    def rows(self) -> list[ServerResult]:
        """The rows of the table."""
        return [
            ServerResult(
                result=one.result,
                server=one.config,
                runtime=one.runtime,
                key=one.key,
                blocks=one.exit if one.name.isdigit() else None,
                exit=one.name or None,
                why=render.reason(one),
                caution=one.gate.caution if one.gate else "",
            )
            for one in self.servers
        ]

    def to_json(self) -> list[dict[str, Any]]:
        """Return a JSON object for each server."""
        return [asdict(row) for row in self.rows]


_TEXT, _PATH = "a text", "a path"


class _Top(Record):
    """The top of a fleet's file."""

    servers: list[Any] = Field(min_length=1, max_length=1000, description="a list of 1 to 1000 servers")
    against: Filled | None = Field(None, description=_PATH)
    policy: Filled | None = Field(None, description=_PATH)


class _Entry(Record):
    """A server of a fleet's file; the fields are flags of `check`."""

    target: Filled = Field(description="a file or folder that check accepts")
    against: Filled | None = Field(None, description=_PATH)
    policy: Filled | None = Field(None, description=_PATH)
    limit: float | None = Field(None, description="a share from 0 to 1")
    revision: Filled | None = Field(None, description=_TEXT)
    adapter: Filled | None = Field(None, description=_PATH)
    hf_overrides: Filled | None = Field(None, description="JSON in quotes")
    runtime: Filled | None = Field(None, description="a runtime such as vllm@0.32.0")


def _name(key: str) -> str:
    return printable(key, 60)


def check_fleet(file: Path) -> Fleet:
    """Check every server of a fleet's YAML file; paths are relative to the working folder.

    Raises:
        LayeralignError: a part of the file is invalid, or a target, run or policy cannot be read; the message
            says which server.
    """
    name = f"fleet {file}"
    content, lines = strict_yaml.read(file, name)
    if not isinstance(content, dict):
        raise LayeralignError(f"{name}: is {type(content).__name__}; expected the keys servers and against")
    top = validated(_Top, content, lambda key: f"{name}, line {lines.get((key,), 1)}", name=_name)
    runs: dict[str, Results] = {}
    found: list[Deployed] = []
    for number, given in enumerate(top.servers):
        where = f"{name}, line {lines['servers', number]}, server {number + 1}"
        if not isinstance(given, Mapping):
            raise LayeralignError(f"{where}: is {type(given).__name__}; expected keys such as target")
        entry = validated(_Entry, dict(given), where, name=_name)
        try:
            found += _checked(entry, top, runs)
        except (LayeralignError, OSError) as error:  # a name may be too long for the system
            raise LayeralignError(f"{where}: {printable(str(error), 400)}") from error
    return Fleet(tuple(found))


def _checked(entry: _Entry, top: _Top, runs: dict[str, Results]) -> Sequence[Deployed]:
    """Check the servers of one target; a run that several use is loaded once."""
    against = entry.against or top.against
    if against is None:
        raise LayeralignError("against is missing, here and at the top; expected the folder of a run")
    if against not in runs:
        runs[against] = Results.load(Path(against))
    policy = entry.policy or (top.policy if entry.limit is None else None)
    return check(
        entry.target,
        runs[against],
        policy=None if policy is None else read_policy(policy),
        limit=entry.limit,
        revision=entry.revision,
        adapter=entry.adapter,
        hf_overrides=entry.hf_overrides,
        runtime=entry.runtime,
    )
