"""`check`: the exit of a deployed config. Exit codes: 0 safe, 2 unsafe, 3 inconclusive, 1 error."""

from __future__ import annotations

from pathlib import Path

from layeralign._util.terminal import put, say


def check(
    config: str,
    *,
    against: Path,
    policy: Path | None = None,
    limit: float | None = None,
    revision: str | None = None,
    adapter: Path | None = None,
    hf_overrides: str | None = None,
) -> int:
    """Find the exit at which a model's config runs, and check whether a run has shown that exit to be safe.

    Exit codes: 0 safe, 2 unsafe, 3 inconclusive, 1 error.

    Parameters
    ----------
    config
        config.json, checkpoint folder, hub id, `testbed`, or a vision file for llama.cpp and Ollama
        (`mmproj-*.gguf`); no weights are loaded. In this command, `--config` names it too, not a YAML file of
        flags.
    against
        Folder of the run.
    policy
        YAML file whose rules for that exit define safe; it needs an upper bound of the asr. Rules with
        no_worse_than are ignored; use gate for them.
    limit
        Highest ASR that is safe without a policy, 0 to 1; 0.05 by default. The exit must also not be
        significantly worse than the default exit.
    revision
        Branch, tag or commit of a hub id.
    adapter
        Folder of the LoRA adapter that is deployed with the model.
    hf_overrides
        JSON object of config fields that the server changes, as in `vllm serve --hf-overrides`.
    """
    from layeralign.analysis.results import Results
    from layeralign.gating import render
    from layeralign.gating.deployed import check as run_check
    from layeralign.gating.policy import read

    rules, run = None if policy is None else read(policy), Results.load(against)
    found = run_check(
        config, run, policy=rules, limit=limit, revision=revision, adapter=adapter, hf_overrides=hf_overrides
    )
    if found.gate is not None:
        if found.gate.caution:
            say(found.gate.caution)
        put(render.table(found.gate), keys=2)
    say(render.deployed(found))
    return found.exit_code
