"""What is known of each runtime: the key that sets the exit, how it counts, and since which version.

`docs/runtimes.md` shows this table, and `layeralign check --list` prints it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.gating.deployments.place import Undecided

Version = tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """How a runtime comes from a key to an exit, for some families.

    Attributes:
        runtime: the runtime's name, as in `--runtime`.
        families: `model_type` of the configs, or the projectors of a GGUF file.
        key: the key, and the flag that sets it.
        counts: the index base.
        off: the difference from `hidden_states`.
        versions: the versions for which this holds, the last one included; empty where no version is known.
        proof: the command that proves it, with the version that was run, or `read in source, not run`.
        check: what `check` says of it: `exit` or `inconclusive`.
    """

    runtime: str
    families: str
    key: str
    counts: str
    off: str
    versions: str
    proof: str
    check: str = "inconclusive"

    def covers(self, version: Version) -> bool:
        """Return whether a version is in the range."""
        ends = [_numbers(end) for end in self.versions.split(" to ")] if self.versions else []
        return bool(ends) and ends[0] <= version and version[: len(ends[-1])] <= ends[-1]


_SOURCE = "read in source, not run"
_GPUS = f"{_SOURCE}: its kernels on PyPI are for GPUs only"
_RUN_VLLM = "0.32.0: `benchmarks/runtimes/vllm_server.py`"
_CHAT = f"{_RUN_VLLM}, the last block and a file with too many; else read in source"
_RUN_CPP = "b11434: `benchmarks/runtimes/llama_cpp.py`"
_STATES, _LAYER = "`hidden_states`; negative from the end", "`vision_feature_layer`"
_LLAVA, _MLP = "`llava`, `llava_next`", "projectors `mlp`, `mlp_norm`"
_HF, _JSON = "`--hf-overrides`", "`--json-model-override-args`"
_VLLM, _CPP = "0.32 to 0.33", "b9093 to b11434"
_SHORT = "runs one block less than its model (issue 25817)"
_CLASS = "class token in, first patch out (issue 25814)"
TABLE = (
    Reading("transformers", f"{_LLAVA}, `llava_onevision`", f"{_LAYER} in `config.json`", _STATES, "none",
            "5.23", "`pytest tests/test_check.py tests/test_families.py`", "exit"),
    Reading("vllm", _LLAVA, f"{_LAYER}, {_HF}", _STATES, "none", _VLLM, _RUN_VLLM, "exit"),
    Reading("vllm", _LLAVA, f"{_LAYER}, before pull request 13514 (February 2025)", _STATES,
            "N > 0 runs N + 1 blocks", "", _SOURCE),
    Reading("vllm", "`mistral3`", f"{_LAYER}, {_HF}", _STATES, "none", _VLLM, _RUN_VLLM),
    Reading("vllm", "`internvl_chat` and relatives", f"`select_layer`, {_HF}",
            "blocks from 0; negative as `hidden_states`",
            "N ≥ 0 runs N + 1 blocks; a file with more blocks does not start", _VLLM, _CHAT),
    Reading("vllm", "`internvl`", _LAYER, "ignored", "", _VLLM, _RUN_VLLM),
    Reading("vllm", "any", "features in a request, `--enable-mm-embeds`", "any exit", "", _VLLM,
            "0.32.0: `benchmarks/runtimes/vllm_engine.py`"),
    Reading("sglang", "`llava`", f"{_LAYER}, {_JSON}", _STATES, "none", "0.5.23", _GPUS, "exit"),
    Reading("sglang", "`llava`", f"`mm_vision_select_layer`, `select_layer`, {_JSON}", _STATES, "none",
            "0.5.23", _GPUS),
    Reading("sglang", "any", "`precomputed_embedding` in a request", "any exit", "", "0.5.23", _GPUS),
    Reading("llama.cpp", _MLP, "`clip.vision.feature_layer` in `mmproj-*.gguf`", "`hidden_states`, 0 or more",
            "none", _CPP, _RUN_CPP, "exit"),
    Reading("llama.cpp", _MLP, "`clip.vision.block_count`, without a `feature_layer`", "number of blocks",
            _SHORT, _CPP, _RUN_CPP, "exit"),
    Reading("llama.cpp", "a tower with a class token", "none", "", _CLASS, _CPP, _RUN_CPP),
    Reading("ollama", _MLP, "as llama.cpp", "as llama.cpp", "as llama.cpp", "", _SOURCE, "exit"),
    Reading("mlx-vlm", "`llava`, `llava_onevision`", f"{_LAYER} in `config.json`", _STATES, "none", "0.7.10",
            "`llava`: `benchmarks/runtimes/mlx_answers.py`", "exit"),
    Reading("mlx-vlm", "`lfm2_vl`", _LAYER, "blocks from 0", "N ≥ 0 runs N + 1 blocks", "0.7.10", _SOURCE),
)  # fmt: skip
"""Every reading that is known; whatever is not here is inconclusive."""
NAMES = tuple(dict.fromkeys(reading.runtime for reading in TABLE))
GGUF = ("llama.cpp", "ollama")
"""Runtimes that read a vision file."""


@dataclass(frozen=True)
class Runtime:
    """A runtime of a server; `version` is empty where it is not known."""

    name: str
    version: Version = ()

    def __str__(self) -> str:
        """Return the name and version, as `--runtime` takes them."""
        mark = "@b" if self.name == "llama.cpp" else "@"
        return self.name + (f"{mark}{'.'.join(map(str, self.version))}" if self.version else "")

    def check(self, family: str) -> str:
        """Check that its way to an exit is known; return why the exit is still uncertain, or "".

        Args:
            family: `model_type` of the config; `mlp` for a GGUF file.

        Raises:
            Undecided: no reading of the family is known, or none for this version.
        """
        name = printable(repr(family), 40)
        known = [
            one
            for one in TABLE
            if one.runtime == self.name and f"`{family}`" in one.families and one.check == "exit"
        ]
        if not known:
            raise Undecided(f"the exit at which {self.name} runs a {name} is not known (see check --list)")
        if self.version and not any(one.covers(self.version) for one in known):
            of = f"known are {known[0].versions}" if known[0].versions else "no version of it is known"
            raise Undecided(f"the exit at which {self} runs a {name} is not known; {of}")
        if self.version or not known[0].versions:
            return ""
        return f"its version is not known; add --runtime {self}@VERSION ({known[0].versions} were read)"


def runtime(given: str) -> Runtime:
    """Read a runtime: `llama.cpp@b10488`, `vllm@0.32.0`, or the name alone.

    Raises:
        LayeralignError: the runtime is not known, or its version is none.
    """
    name, at, version = given.partition("@")
    if name not in NAMES:
        raise LayeralignError(f"runtime {printable(given, 60)}: expected one of {', '.join(NAMES)}")
    if at and not re.fullmatch(r"[vb]?\d{1,9}(\.\d{1,9}){0,5}", version):
        raise LayeralignError(
            f"runtime {printable(given, 60)}: expected a version such as llama.cpp@b10488 or vllm@0.32.0"
        )
    return Runtime(name, _numbers(version) if at else ())


def of_image(found: Runtime, image: str) -> Runtime:
    """Return a runtime with the version that the tag of a container's image names, if it names one."""
    tag = re.search(r":v?(\d{1,6}(?:\.\d{1,6}){1,3})", image.rpartition("/")[2])
    return replace(found, version=_numbers(tag[1])) if tag else found


def _numbers(version: str) -> Version:
    return tuple(int(part) for part in version.lstrip("vb").split("."))
