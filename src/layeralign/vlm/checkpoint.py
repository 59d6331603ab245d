"""Checkpoints and adapters from a folder or the hub, checked before anything of them is loaded."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from layeralign._util.files import expanded, read_regular, watched
from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.vlm.limits import check_named, check_numbers, check_templates, shape_of

TRAINING = "training.json"
"""File next to an adapter in which `layeralign align` records the training."""
TRAINED_ON = "trained_on.json"
"""File next to an adapter with the hash (`Case.asked`) of each case that it was trained on."""
_TESTBED = Path(__file__).parent.parent / "testbed" / "model"
DTYPES = ("float32", "bfloat16", "float16")
"""Number formats that a model can be loaded in."""
SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Short names of `DTYPES`."""
_KINDS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_LARGE, _PART = 10**9, 2**24
"""Bytes of a checkpoint whose reading shows progress, and bytes that are read at once."""
_WANTED = (
    "*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.spm", "bpe.codes", "prophetnet.tokenizer",
    "additional_chat_templates/*.jinja",
)  # fmt: skip
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_MAX_JSON, _MOST_PARTS = 32 * 2**20, 300_000
"""Largest JSON file of a model, in bytes, and most values in its configs: each is read several times."""
_INDEX = "model.safetensors.index.json"
_CONFIGS = (
    "config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json",
    "audio_tokenizer_config.json", "generation_config.json", "special_tokens_map.json", "chat_template.json",
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk.

    Attributes:
        name: The model's name as given.
        path: Its folder.
        revision: The hub's commit; None for a folder.
    """

    name: str
    path: Path
    revision: str | None = None

    def config(self) -> dict[str, Any]:
        """The parsed `config.json`."""
        return read_json(self.path / "config.json")

    def files(self) -> list[Path]:
        """The files that define the model, sorted by name."""
        return sorted({file for pattern in _WANTED for file in self.path.glob(pattern) if file.is_file()})

    @cached_property
    def hashes(self) -> dict[str, str]:
        """File -> SHA-256 in hex, computed at first access: before a file is loaded."""
        self.unchanged  # noqa: B018 - from now on
        return _hashes(self.path, self.files())

    @cached_property
    def unchanged(self) -> Callable[[], None]:
        """Refuses, when it is called, files that are others than at the first access; see `watched`."""
        return watched(self.files(), f"model {self.name}")

    def tensors(self) -> int:
        """The number of tensors in the weights.

        Raises:
            LayeralignError: The weights cannot be read.
        """
        try:
            return sum(1 for _ in self._tensors())
        except Exception as error:  # safetensors raises types of its own
            raise LayeralignError(
                f"model {self.name}: its weights cannot be read ({printable(str(error), 100)})"
            ) from error

    def parameters(self) -> int:
        """The number of weights, from the headers of the safetensors files."""
        return sum(prod(shape) for shape, _ in self._tensors())

    def dtype(self) -> str:
        """The weights' own number format: the config's, else that of most weights.

        `float32` if it is none of `DTYPES`, for example in a quantised checkpoint.
        """
        config = self.config()
        parts = [one for one in (config, config.get("text_config")) if isinstance(one, dict)]
        found = next(filter(None, (one.get("dtype") or one.get("torch_dtype") for one in parts)), None)
        if found is None:
            weights: Counter[str] = Counter()
            for shape, kind in self._tensors():
                weights[kind] += prod(shape)
            found = _KINDS.get(max(weights, key=weights.__getitem__, default=""))
        return found if found in DTYPES else "float32"

    def _tensors(self) -> Iterator[tuple[list[int], str]]:
        """Shape and number format of each tensor."""
        from safetensors import safe_open

        for file in (file for file in self.files() if file.suffix == ".safetensors"):
            with safe_open(file, framework="np") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                    found = tensors.get_slice(name)
                    yield shape_of(found), found.get_dtype()

    @property
    def large(self) -> bool:
        """Whether it takes long enough to read to show progress."""
        return sum(file.stat().st_size for file in self.files()) >= _LARGE


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter on disk, in PEFT's format."""

    name: str
    path: Path

    @cached_property
    def hashes(self) -> dict[str, str]:
        """File name -> SHA-256 in hex, computed at first access: `load` does so before it loads."""
        names = ("adapter_config.json", "adapter_model.safetensors")
        return _hashes(self.path, [self.path / name for name in names])

    def reward(self) -> dict[str, Any] | None:
        """The record of the reward that it was trained on; None if layeralign's record has none.

        Raises:
            LayeralignError: The record cannot be read.
        """
        file = self.path / TRAINING
        found = read_json(file).get("reward") if file.is_file() else None
        return found if isinstance(found, dict) and isinstance(found.get("files"), dict) else None

    def trained_on(self) -> frozenset[str]:
        """Hashes (`Case.asked`) of the training cases; empty if layeralign's record has none.

        Raises:
            LayeralignError: The record cannot be read.
        """
        file = self.path / TRAINED_ON
        if not file.is_file():
            return frozenset()
        from layeralign.vlm.adapter.trained_on import TrainedOn, validated  # pydantic is slow to import

        return frozenset(validated(TrainedOn, read_json(file), str(file)).asked)


def _hashes(folder: Path, files: list[Path]) -> dict[str, str]:
    from layeralign._util.progress import Progress

    parts = sum(-(-file.stat().st_size // _PART) for file in files)
    with Progress("hashing files, parts of 16 MB", parts, speaks=parts * _PART >= _LARGE) as progress:
        return {file.relative_to(folder).as_posix(): _hash(file, progress.advance) for file in files}


def _hash(file: Path, advance: Callable[[int], None]) -> str:
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while part := stream.read(_PART):
            found.update(part)
            advance(1)
    return found.hexdigest()


def find(model: str | Path, revision: str | None = None, *, weights: bool = True) -> Checkpoint:
    """Find a checkpoint: a folder if there is one of that name, else a hub id.

    Args:
        model: Folder or hub id.
        revision: Branch, tag or commit of a hub id.
        weights: Whether weights are required; if not, only configs are downloaded.

    Raises:
        LayeralignError: The folder or hub id does not exist, has no config, has weights that are not
            safetensors, or requires code of its own.
    """
    path = expanded(model)
    if path.is_dir():
        if revision is not None:
            raise LayeralignError(f"model {model}: is a folder, so --revision does not apply; remove it")
        checkpoint = Checkpoint(str(model), path.resolve())
    elif path.exists():
        raise LayeralignError(f"model {model}: is a file; expected a checkpoint folder or a hub id")
    elif str(model).count("/") == 1 and not str(model).startswith((".", "/", "~")):
        checkpoint = _download(str(model), revision, _WANTED if weights else ("*.json",))
    else:
        raise LayeralignError(f"model {model}: no such folder; expected a folder or a hub id (owner/name)")
    _check(checkpoint, configs := _configs(checkpoint.path))
    if weights:
        _check_weights(checkpoint.name, checkpoint.path)
        check_numbers(checkpoint.name, configs, checkpoint.tensors())
    return checkpoint


def find_model(model: str | Path, revision: str | None = None, *, weights: bool = True) -> Checkpoint:
    """`find`, where `testbed` and `natural` are the models that ship with layeralign."""
    return replace(find(_place(model), revision, weights=weights), name=str(model))


def _place(model: str | Path) -> str | Path:
    """The folder or hub id of a model that may be one of the two testbeds.

    Raises:
        LayeralignError: A checkpoint in the working folder has the name of a testbed.
    """
    if model not in ("testbed", "natural"):
        return model
    if (Path(model) / "config.json").exists():
        raise LayeralignError(
            f"model {model}: ships with layeralign, and is a checkpoint here, too; expected ./{model} for "
            "that checkpoint, or another working folder"
        )
    if model == "testbed":
        return _TESTBED
    from layeralign.testbed.natural import assembled

    return assembled.folder()


def find_adapter(folder: str | Path) -> Adapter:
    """Find the adapter in `folder`.

    Raises:
        LayeralignError: There is no adapter, it is not LoRA, or its weights are not safetensors.
    """
    path = expanded(folder)
    if not (path / "adapter_config.json").is_file():
        raise LayeralignError(
            f"adapter {folder}: has no adapter_config.json; expected a folder with a LoRA adapter in PEFT's "
            "format, as written by layeralign align"
        )
    config = read_json(path / "adapter_config.json")
    kind, start = config.get("peft_type"), config.get("init_lora_weights", True)
    if kind != "LORA":
        raise LayeralignError(f"adapter {folder}: is of type {printable(repr(kind), 60)}; expected LORA")
    if not isinstance(start, bool) and start != "gaussian":
        raise LayeralignError(
            f"adapter {folder}: init_lora_weights is {printable(repr(start), 60)}, which changes the "
            "model's own weights; convert it to plain LoRA first"
        )
    if not (path / "adapter_model.safetensors").is_file():
        raise LayeralignError(
            f"adapter {folder}: has no adapter_model.safetensors; convert it, as other formats can run code"
        )
    return Adapter(str(folder), path.resolve())


def _download(model: str, revision: str | None, wanted: tuple[str, ...]) -> Checkpoint:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        path = Path(snapshot_download(model, revision=revision, allow_patterns=list(wanted)))
    except GatedRepoError as error:
        raise LayeralignError(
            f"model {model}: access is gated; accept its licence on the hub, then set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise LayeralignError(f"model {model}: the hub has no revision {revision}") from error
    except RepositoryNotFoundError as error:
        raise LayeralignError(f"model {model}: no such folder, and no such model on the hub") from error
    except Exception as error:  # the hub client raises many types that mean the same to users
        raise LayeralignError(
            f"model {model}: no such folder, and the hub could not be reached ({type(error).__name__}); "
            "give a folder, or check the network and HF_HUB_OFFLINE"
        ) from error
    return Checkpoint(model, path, path.name)


def _check(checkpoint: Checkpoint, configs: dict[str, dict[str, Any]]) -> None:
    name, path = checkpoint.name, checkpoint.path
    if "config.json" not in configs:
        raise LayeralignError(f"model {name}: has no config.json; expected a transformers checkpoint")
    check_named(name, path, configs)
    check_templates(name, [file for file in checkpoint.files() if file.suffix == ".jinja"])
    if (path / "adapter_config.json").is_file():
        raise LayeralignError(
            f"model {name}: is an adapter (adapter_config.json); give its base as model, and it as adapter"
        )


def _check_weights(name: str, path: Path) -> None:
    if (path / _INDEX).is_file():
        _check_index(name, path)
    elif not (path / "model.safetensors").is_file():
        pickles = sorted(f.name for pattern in _PICKLES for f in path.glob(pattern))
        found = f"only {pickles[0]}, a pickle, which can run code" if pickles else "no weights"
        raise LayeralignError(
            f"model {name}: weights must be model.safetensors or its shards; found {found}"
            + ("; convert it with safetensors first" if pickles else "")
        )


def _check_index(name: str, path: Path) -> None:
    """Check that every shard is a safetensors file in the folder: nothing else is hashed or read."""
    shards = read_json(path / _INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise LayeralignError(f"model {name}: {_INDEX} has no weight_map; download the model again")
    for shard in set(map(str, shards.values())):
        if Path(shard).name != shard or not shard.endswith(".safetensors") or not (path / shard).is_file():
            raise LayeralignError(
                f"model {name}: {_INDEX} lists the file {shard!r}; expected *.safetensors files in its folder"
            )


def _configs(folder: Path) -> dict[str, dict[str, Any]]:
    """Name -> content of the configs that there are."""
    found = {name: _read(folder / name) for name in _CONFIGS if (folder / name).is_file()}
    if sum(parts for _, parts in found.values()) > _MOST_PARTS:
        raise LayeralignError(f"{folder}: its configs have more than {_MOST_PARTS:,} values, the limit")
    return {name: content for name, (content, _) in found.items()}


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        LayeralignError: The file cannot be read, or is not a JSON object.
    """
    return _read(file)[0]


def _read(file: Path) -> tuple[dict[str, Any], int]:
    """See `read_json`; also about how many values it has."""
    try:
        raw = read_regular(file, _MAX_JSON)
        if (parts := sum(map(raw.count, (b"{", b"[", b",")))) > _MOST_PARTS:
            raise ValueError(f"has more than {_MOST_PARTS:,} values, the limit")
        content = json.loads(raw.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LayeralignError(f"{file}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise LayeralignError(f"{file}: expected a JSON object")
    return content, parts
