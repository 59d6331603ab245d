"""Limits on what a config may ask for, by what its weights hold."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layeralign._util import bounded
from layeralign._util.quiet import offline
from layeralign._util.text import printable
from layeralign.errors import LayeralignError

if TYPE_CHECKING:
    from torch import nn

ELSEWHERE = {
    "transformers_weights", "configuration_files", "fast_tokenizer_files", "audio_tokenizer_name_or_path",
    "gguf_file", "vocab", "merges", "repo_path", "class_info_file",
}  # fmt: skip
"""Fields with which transformers reads files that are not checked, or not hashed, pickles among them.

So is `backbone`, if it is a text: the name of a model whose config is read, from the hub.
"""
_UNREAD = {"name_or_path", "_name_or_path", "special_tokens_map_file"}
"""Fields with the place where a checkpoint was written, which transformers does not read again."""
_CLASS = re.compile("(tokenizer|processor|extractor)_class$|(processor|extractor)_type$")
_READS = re.compile("^(?!Auto|Rag).*(Tokenizer|Processor|Extractor|Backend)(Fast|Pil)?$")
"""Fields with the name of a class of transformers that reads texts or pictures, and names of such classes.

Transformers makes whatever class is named: a model with its kernel, or tokenizers of folders below.
"""
_PATH, _MOST_PATHS = {".", "/", "\\"}, 20_000
"""Characters of which most paths have one, and most texts that have one; each is looked for."""
_MOST_TEMPLATES, _TEMPLATES = 100, 2**25
"""Most chat templates of a checkpoint, and their size in bytes."""
_MOST_TENSORS = 200_000
"""Largest number of tensors of a checkpoint."""
_ROOM = 2**26
"""Most numbers of tables of positions and the like, which are in no file: 256 MiB, twice to make them."""
_PIECES, _MORE = 4, 1000
"""Most tensors of a model for one in its files, and more of them: some are split, or new."""
_DIMENSIONS = 8
"""Most dimensions of a tensor."""
_MOST_TOKENS = 100_000
"""Largest number of picture tokens."""
_MOST_ENTRIES = 100_000
"""Longest list in a config."""
_ROPE, _MOST_ROPE = ("factor", "original_max_position_embeddings"), 10**9
"""Numbers of rotary embeddings, and their limit: a context is computed from them."""
_TOKENS = re.compile("image_tokens|image_seq|seq_length|num_tokens|soft_tokens|query_tokens")


def check_named(model: str, folder: Path, configs: Mapping[str, object]) -> None:
    """Refuse configs that name code, another class than one for texts and pictures, or a file outside.

    Args:
        model: the model's name, for the message.
        folder: the checkpoint's folder.
        configs: file name -> content of the file, JSON.

    Raises:
        LayeralignError: a field stands for code, files or a class, or a text is the path of a file.
    """
    for file, content in configs.items():
        named = {*keys(content)}
        if "auto_map" in named:
            raise LayeralignError(
                f"model {model}: {file} requires the checkpoint's own code (auto_map), which layeralign "
                "never runs; use a checkpoint of a built-in transformers class"
            )
        texts = list(_texts(content))
        if elsewhere := sorted((named & ELSEWHERE) | {name for name, _ in texts if name == "backbone"}):
            raise LayeralignError(
                f"model {model}: {file} has {elsewhere[0]}, which names unchecked files; remove the field"
            )
        if other := next((one for one in texts if _CLASS.search(one[0]) and not _READS.search(one[1])), None):
            raise LayeralignError(
                f"model {model}: {file} has {printable(': '.join(other), 90)}, which is no class for texts "
                "or pictures; download the model again"
            )
        paths = {text for name, text in texts if name not in _UNREAD and _may_be_path(name, text)}
        if len(paths) > _MOST_PATHS:
            raise LayeralignError(
                f"model {model}: {file} has {len(paths):,} texts that may be paths of files; the limit is "
                f"{_MOST_PATHS:,}"
            )
        if path := next((text for text in paths if _outside(folder, text)), None):
            raise LayeralignError(
                f"model {model}: {file} names {printable(path, 60)}, a file outside the checkpoint; remove "
                "the field"
            )


def check_templates(model: str, files: Collection[Path]) -> None:
    """Refuse thousands of chat templates, and huge ones.

    Raises:
        LayeralignError: their number or size is above its limit.
    """
    size = sum(file.stat().st_size for file in files)
    if len(files) > _MOST_TEMPLATES or size > _TEMPLATES:
        raise LayeralignError(
            f"model {model}: has {len(files):,} chat templates of {size / 2**20:,.1f} MiB; the limits are "
            f"{_MOST_TEMPLATES} and {_TEMPLATES >> 20} MiB; remove those that are not used"
        )


def check_numbers(model: str, configs: Mapping[str, object], tensors: int) -> None:
    """Refuse configs that would make a model or a prompt far larger than the weights.

    Args:
        model: the model's name, for the message.
        configs: file name -> content of the file, JSON.
        tensors: the number of tensors in the weights; a model has at least one per layer.

    Raises:
        LayeralignError: a number is above its limit; the message names file and field.
    """
    if tensors > _MOST_TENSORS:
        raise LayeralignError(
            f"model {model}: its weights have {tensors:,} tensors; the limit is {_MOST_TENSORS:,}"
        )
    for file, content in configs.items():
        if (longest := max(map(len, _lists(content)), default=0)) > _MOST_ENTRIES:
            raise LayeralignError(
                f"model {model}: {file} has a list of {longest:,} entries; the limit is {_MOST_ENTRIES:,}"
            )
        for key, value in _numbers(content):
            limit, why = tensors, f"its weights have {tensors} tensors"
            if _TOKENS.search(key):
                limit, why = _MOST_TOKENS, f"the limit is {_MOST_TOKENS:,}"
            elif key in _ROPE:
                limit, why = _MOST_ROPE, f"the limit is {_MOST_ROPE:,}"
            elif ("layers" not in key and key != "depth") or key.endswith("max_window_layers"):
                continue  # Qwen's window is no number of layers: its default is 80 for any depth
            if not value <= limit:  # nor NaN
                raise LayeralignError(
                    f"model {model}: {file}: {printable(key, 60)} is {min(value, 1e300):.3g}, and {why}; "
                    "download the model again"
                )


@offline()
def config_of(folder: Path) -> Any:
    """Read a config.json with transformers, without its choice of attention and experts.

    A checkpoint may name a kernel of the hub, which transformers would download and run.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    config._attn_implementation = config._experts_implementation = None  # of its parts, too
    return config


def try_out(
    folder: Path, what: str, kind: Any = None, most: int | None = None, tensors: int | None = None
) -> None:
    """Read a config in a child process with limits, and build a model of it without weights.

    A config may ask for 10^9 labels or experts, for each of which transformers makes an object.

    Args:
        folder: folder of the config.json.
        what: owner for messages, such as `model NAME`.
        kind: an auto class of transformers; None to read the config only.
        most: the parameters that a model with these weights may hold, besides `_ROOM`.
            Transformers makes what is missing, such as rows of embeddings, before it can be refused.
        tensors: the number of tensors in the weights; each one that is missing takes time.

    Raises:
        LayeralignError: This takes more than the limits of `bounded`.
    """
    import torch

    def build() -> None:
        config = config_of(folder)
        if kind is not None:
            with torch.device("meta"):
                model = kind.from_config(config)
            held = sum(one.numel() for one in model.parameters())
            pieces = sum(1 for _ in model.parameters())
            if tensors is not None and pieces > _PIECES * tensors + _MORE:
                raise MemoryError
            tables = sum(one.nbytes for one in model.buffers())
            if most is not None and (held > most + _ROOM or tables > 4 * _ROOM):
                raise MemoryError

    if reason := bounded.excess(build):
        raise LayeralignError(f"{what}: a model of its config.json {reason}; download the model again")


@contextmanager
def used(
    what: str, given: str = "a text", files: str = "its config.json, weights and tokenizer"
) -> Iterator[None]:
    """Convert the exceptions of a block that is a call of a transformers model or processor alone.

    A tokenizer may have tokens without an embedding, for example, or a config no padding token.

    Args:
        what: owner for messages, such as `model NAME`.
        given: what the model or processor is given.
        files: the files that it was made of.

    Raises:
        LayeralignError: the model or processor cannot be used.
    """
    from torch import OutOfMemoryError

    try:
        yield
    except (OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # torch raises many kinds
        reason = printable(str(error).partition("\n")[0], 100)
        raise LayeralignError(
            f"{what}: cannot read {given} ({reason}); {files} do not fit together, so download the model "
            "again"
        ) from error


def check_weights(model: nn.Module, missing: Iterable[str], report: Mapping[str, Any], what: str) -> None:
    """Refuse a checkpoint that lacks weights, has others, or has more layers than its config.

    Transformers ignores surplus layers: an encoder would exit early, and nothing would show it.

    Args:
        model: the loaded model.
        missing: names of the weights that the checkpoint lacks.
        report: transformers' report: names of the weights that the model has no place for, and names and both
            shapes of those of another shape, which are random.
        what: owner for messages, such as `model NAME`.

    Raises:
        LayeralignError: weights are missing or of another shape, or a list of layers is shorter than its
            weights.
    """
    if other := sorted(report["mismatched_keys"]):
        name, there, here = other[0]
        raise LayeralignError(
            f"{what}: its config.json gives {name} the shape {list(here)}, and its file {list(there)} (such "
            f"weights: {len(other)}); correct the config.json, or download the model again"
        )
    if lacks := sorted(missing):
        raise LayeralignError(
            f"{what}: the checkpoint lacks {len(lacks)} weights that its class needs, such as {lacks[0]}; "
            "use a complete checkpoint, since these weights would be random"
        )
    from torch import nn

    held: dict[str, int] = {}
    for key in report["unexpected_keys"]:
        for number in re.finditer(r"\.(\d{1,9})(?=\.)", key):
            layers = key[: number.start()]
            held[layers] = max(held.get(layers, 0), int(number[1]) + 1)
    for name, part in model.named_modules():
        if isinstance(part, nn.ModuleList | nn.Sequential) and held.get(name, 0) > len(part):
            raise LayeralignError(
                f"{what}: by its config.json, {name} has {len(part)} layers, but its weights hold "
                f"{held[name]}; correct the config.json, or remove weights that the model was trained without"
            )


def shape_of(tensor: Any) -> list[int]:
    """Return the shape of a tensor in a safetensors file.

    Raises:
        ValueError: it has millions of dimensions, for example, for which torch takes seconds.
    """
    shape: list[int] = tensor.get_shape()
    if len(shape) > _DIMENSIONS:
        raise ValueError(f"has a tensor of {len(shape):,} dimensions")
    return shape


def class_of(config: Mapping[str, Any]) -> str:
    """The first name in `architectures` of a config.json; `none` if there is none."""
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else "none"


def keys(content: object) -> Iterator[str]:
    """Every name of a field in JSON."""
    if isinstance(content, dict):
        yield from content
        content = list(content.values())
    if isinstance(content, list):
        for part in content:
            yield from keys(part)


def _texts(content: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in JSON, with the name of its field."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _texts(value, name)
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value, key)
    elif isinstance(content, str):
        yield key, content


def _may_be_path(name: str, text: str) -> bool:
    return name.endswith("_file") or not _PATH.isdisjoint(text)


def _outside(folder: Path, text: str) -> bool:
    """Whether a text is the path of a file, or of a pipe or device, that is not in the folder itself."""
    try:
        path = Path(text)
        return path.exists() and not path.is_dir() and path.parent.resolve() != folder.resolve()
    except (OSError, ValueError):  # too long for a path, or with a null byte
        return False


def _lists(content: object) -> Iterator[list[Any]]:
    """Every list in JSON."""
    if isinstance(content, dict):
        content = list(content.values())
    elif isinstance(content, list):
        yield content
    if isinstance(content, list):
        for part in content:
            yield from _lists(part)


def _numbers(content: object, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number in JSON, with the name of its field."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _numbers(value, str(name))
    elif isinstance(content, list):
        for value in content:
            yield from _numbers(value, key)
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield key, content
