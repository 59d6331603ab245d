"""The exit of a vision file for llama.cpp and Ollama (`mmproj-*.gguf`), from its header.

As `tools/mtmd/models/llava.cpp` of llama.cpp b11434 does (`benchmarks/runtimes/llama_cpp.py` runs it):
`clip.vision.feature_layer` counts blocks as `hidden_states` does, 0 is the encoder's input. Without it, a
LLaVA projector reads the output of `block_count - 1` blocks. Converters for LLaVA have already left the last
block out, so such a file runs one block less than its model (ggml-org/llama.cpp#25817).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layeralign._util import bounded
from layeralign._util.text import printable
from layeralign.errors import LayeralignError

_MOST_BYTES = 64 * 2**30
_LLAVA = ("mlp", "mlp_norm")
"""Projectors that read a LLaVA's layer; others have rules of their own."""
_FIELD, _CLIP = b"\x14\0\0\0\0\0\0\0general.architecture", b"\x08\0\0\0\x04\0\0\0\0\0\0\0clip"
"""The first field of a header, and its value in a vision file; a language model's takes seconds to read."""
_SHAPE = {
    "clip.vision.embedding_length": "hidden_size",
    "clip.vision.feed_forward_length": "intermediate_size",
    "clip.vision.attention.head_count": "num_attention_heads",
    "clip.vision.image_size": "image_size",
    "clip.vision.patch_size": "patch_size",
}
"""Fields of the file, with those of `vision_config` that they have to equal."""


@dataclass(frozen=True)
class VisionFile:
    """What a vision file says about its encoder.

    Attributes:
        fields: the `clip.` fields of its header.
        tensors: names of its tensors.
    """

    fields: Mapping[str, Any]
    tensors: frozenset[str]

    @property
    def blocks_run(self) -> int:
        """The number of the encoder's blocks that llama.cpp runs.

        Raises:
            ValueError: the file does not say, or its projector is none of a LLaVA; the message says why.
        """
        kind = self.fields.get("clip.projector_type", self.fields.get("clip.vision.projector_type"))
        if kind not in _LLAVA:
            raise ValueError(f"its projector is {printable(repr(kind), 40)}, whose exit is not known")
        layers = self.fields.get("clip.vision.feature_layer") or []
        if not isinstance(layers, list) or not all(type(layer) is int for layer in layers):
            raise ValueError(f"its feature_layer is {printable(repr(layers), 40)}, not a list of layers")
        if len(layers) > 1:
            raise ValueError(f"it joins the layers {layers}, and what that does in llama.cpp is not known")
        stored = len({name.split(".")[2] for name in self.tensors if name.startswith("v.blk.")})
        count = self.fields.get("clip.vision.block_count")
        if type(count) is not int or not 0 < count <= stored:
            raise ValueError(f"its block_count is {printable(repr(count), 40)}, and it has {stored} blocks")
        run = layers[0] if layers else count - 1
        if not 0 <= run <= count:
            raise ValueError(f"its feature_layer is {run}, and it has {count} blocks")
        return int(run)

    @property
    def key(self) -> str:
        """The field that sets the number of blocks, with its value."""
        name = "clip.vision.feature_layer"
        name = name if self.fields.get(name) else "clip.vision.block_count"
        return printable(f"{name} {self.fields.get(name)}", 60)

    def unlike(self, vision: Mapping[str, Any]) -> str:
        """Return how the encoder differs from that of a complete `vision_config`; empty if it does not."""
        for name, key in _SHAPE.items():
            here, there = self.fields.get(name), vision.get(key)
            if here != there:
                return f"its {name} is {printable(repr(here), 40)}, and the scanned model's {key} is {there}"
        return "it has a norm after the blocks" if "v.post_ln.weight" in self.tensors else ""

    @property
    def deviation(self) -> str:
        """Return why the features are not those of transformers even at the same exit; empty if they are."""
        if "v.class_embd" not in self.tensors:
            return ""
        lost = "gives the class token to the language model and loses the first patch (its issue 25814)"
        return f"llama.cpp {lost}"


def read(file: Path) -> VisionFile:
    """Read the header of a GGUF file.

    Raises:
        LayeralignError: the package `gguf` is missing, or the file is not a GGUF file or too large to read.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise LayeralignError(
            f"config {file}: a GGUF file needs the package gguf; pip install 'layeralign[natural]'"
        ) from error
    if file.stat().st_size > _MOST_BYTES:
        raise LayeralignError(f"config {file}: is larger than {_MOST_BYTES >> 30} GiB; give the mmproj file")
    if reason := bounded.excess(lambda: GGUFReader(file)):
        raise LayeralignError(f"config {file}: its header {reason}; give the mmproj file of the model")
    try:
        header = GGUFReader(file)
        fields = {name: field.contents() for name, field in header.fields.items() if name.startswith("clip.")}
    except Exception as error:  # the package raises many kinds for a broken file
        raise LayeralignError(
            f"config {file}: cannot be read as GGUF ({printable(str(error), 100)}); download it again"
        ) from error
    return VisionFile(fields, frozenset(tensor.name for tensor in header.tensors))


def is_vision(file: Path) -> bool:
    """Return whether a file is GGUF, and its header does not begin with another architecture than `clip`."""
    with file.open("rb") as stream:
        kind, field, value = (stream.read(size) for size in (24, len(_FIELD), len(_CLIP)))
    return kind.startswith(b"GGUF") and (field != _FIELD or value == _CLIP)
