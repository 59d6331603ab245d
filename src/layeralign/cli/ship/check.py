"""`check`: the exit of a deployed config. Exit codes: 0 safe, 2 unsafe, 3 inconclusive, 1 error."""

from __future__ import annotations

import json as as_json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from layeralign._util.terminal import put, say
from layeralign.cli.options import Format, Json
from layeralign.errors import LayeralignError

if TYPE_CHECKING:
    from layeralign.gating.fleet import Fleet


def check(
    config: str | None = None,
    *,
    against: Path | None = None,
    policy: Path | None = None,
    limit: float | None = None,
    revision: str | None = None,
    adapter: Path | None = None,
    hf_overrides: str | None = None,
    runtime: str | None = None,
    endpoint: str | None = None,
    fleet: Path | None = None,
    list_: Annotated[bool, Parameter(name="--list")] = False,
    format: Format = "table",
    json: Json = False,
) -> int:
    """Find the exit at which a model is deployed, and check whether a run has shown that exit to be safe.

    Exit codes: 0 safe, 2 unsafe, 3 inconclusive, 1 error.

    Parameters
    ----------
    config
        config.json, checkpoint folder, hub id, `testbed`, or a vision file for llama.cpp and Ollama
        (`mmproj-*.gguf`). Also a shell script, a Kubernetes manifest or a compose file that starts vLLM or
        SGLang, their YAML file, Ollama's Modelfile, manifest or folder, or a folder of mlx-vlm. No weights
        are loaded, except with --endpoint. In this command `--config` is this target, not a YAML file
        of flags.
    against
        Folder of the run.
    policy
        YAML file whose rules for that exit define safe; it needs an upper bound of the asr. Rules with
        no_worse_than are ignored; use gate for them.
    limit
        Highest ASR that is safe without a policy, from 0 to below 1; 0.05 by default. The exit must also not
        be significantly worse than the default exit.
    revision
        Branch, tag or commit of a hub id.
    adapter
        Folder of the LoRA adapter that is deployed with the model.
    hf_overrides
        JSON object of config fields that the server changes, as in `vllm serve --hf-overrides`.
    runtime
        Runtime that runs the model, with its version, such as llama.cpp@b10488 or vllm@0.32.0. A version that
        --list does not name is inconclusive.
    endpoint
        `MODEL@URL` of a running server with OpenAI's API: up to 40 cases of the run are sent, and the answers
        are compared with every exit's. If CONFIG is the scanned model, it is loaded, and log-probabilities
        are compared, too. The key is read from LAYERALIGN_API_KEY.
    fleet
        YAML file with a list of targets, each with its run; see docs/gate.md.
    list_
        Print what is known of each runtime: key, index base, versions, and how it was proved.
    format
        Table, or JSON for scripts.
    json
        The same as --format json.
    """
    from layeralign.gating.deployments import runtimes, tables
    from layeralign.gating.fleet import Fleet, check_fleet

    plain = json or format == "json"
    if list_:
        if plain:
            print(
                as_json.dumps([asdict(reading) for reading in runtimes.TABLE], indent=2, ensure_ascii=False)
            )
        else:
            put(tables.runtimes())
        return 0
    if fleet is not None:
        others = (config, against, policy, limit, revision, adapter, hf_overrides, runtime, endpoint)
        if any(one is not None for one in others):
            raise LayeralignError("check: --fleet does not go with other options; give them in the file")
        return _show(check_fleet(fleet), plain, table=True)
    if against is None or (config is None and endpoint is None):
        lacks = "--against" if against is None else "CONFIG or --endpoint"
        raise LayeralignError(f"check: {lacks} is missing; see layeralign check --help")
    from layeralign.analysis.results import Results
    from layeralign.gating.deployed import check as run_check
    from layeralign.gating.policy import read

    rules, run = None if policy is None else read(policy), Results.load(against)
    if config is None or endpoint is not None:
        if hf_overrides is not None or runtime is not None:
            raise LayeralignError("check: --endpoint does not go with --hf-overrides and --runtime")
        from layeralign.gating.endpoint import check as check_endpoint

        made, located = check_endpoint(
            str(endpoint), run, policy=rules, limit=limit, model=config, revision=revision, adapter=adapter
        )
        if plain:
            told = {"endpoint": asdict(located), "servers": Fleet((made,)).to_json()}
            print(as_json.dumps(told, indent=2, ensure_ascii=False))
            return made.exit_code
        put(tables.located(located))
        return _show(Fleet((made,)), plain, table=False)
    found = run_check(
        config, run, policy=rules, limit=limit, revision=revision, adapter=adapter, hf_overrides=hf_overrides,
        runtime=runtime,
    )  # fmt: skip
    return _show(Fleet(found), plain, table=len(found) > 1)


def _show(found: Fleet, plain: bool, *, table: bool) -> int:
    """Print a fleet as JSON, as a table, or the limits of its only server; return the exit code."""
    from layeralign.gating import render
    from layeralign.gating.checks import WORST_FIRST
    from layeralign.gating.deployments import tables

    if plain:
        print(as_json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        return found.exit_code
    for caution in dict.fromkeys(one.gate.caution for one in found.servers if one.gate):
        say(*([caution] if caution else []))
    if table:
        put(tables.servers(found.rows), keys=2)
        counts = {name: sum(one.result == name for one in found.servers) for name in WORST_FIRST}
        say(f"{found.result}: {', '.join(f'{n} {name}' for name, n in counts.items() if n)}")
        return found.exit_code
    (one,) = found.servers
    if one.gate is not None:
        put(render.table(one.gate), keys=2)
    say(render.deployed(one))
    return found.exit_code
