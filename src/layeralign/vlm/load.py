"""Loading models."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    ProcessorMixin,
)

from layeralign._util.files import watched
from layeralign._util.quiet import offline, quiet
from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.vlm import checkpoint as checkpoints
from layeralign.vlm import finite, limits, placement
from layeralign.vlm import processor as processors
from layeralign.vlm.adapter import base
from layeralign.vlm.adapter.config import lora_config
from layeralign.vlm.adapter.weights import insert
from layeralign.vlm.families import proof
from layeralign.vlm.families.registry import family_of
from layeralign.vlm.text import trial
from layeralign.vlm.vlm import Vlm

_TIED, _PACKED = 2, 16
"""Most weights of a model for one number in its files: two may be tied, and quantised ones are packed."""


def load(
    model: str | Path,
    *,
    adapter: str | Path | None = None,
    allow_base: bool = False,
    revision: str | None = None,
    variant: str | None = None,
    dtype: str = "auto",
    device_map: str | dict[str, Any] | None = None,
    quantize: str | None = None,
) -> Vlm:
    """Load a vision-language model, with weights only from safetensors and without its own code.

    Args:
        model: A checkpoint folder, a hub id, `testbed`, the model that ships with layeralign, or `natural`,
            the second testbed, which is assembled from pretrained parts at the first call.
        adapter: Folder of a LoRA adapter in PEFT's format, which is merged into the weights.
        allow_base: Whether to load an adapter that was trained on a different model; runs record it.
        revision: The hub's branch, tag or commit; only for hub ids.
        variant: How the family reads "exit at l", if it has several variants; see docs/families.md.
        dtype: `float32`, `bfloat16`, `float16` (or `fp32`, `bf16`, `fp16`); `auto` is the checkpoint's own on
            a GPU and float32 on a CPU.
        device_map: A torch device, accelerate's `auto`, `balanced` or `sequential`, or a map from modules to
            devices; by default this process's GPU, else the CPU. `disk` is a device, too.
        quantize: `4bit` or `8bit`, for the language model only; needs CUDA and bitsandbytes.

    Raises:
        LayeralignError: The model does not exist, is not safe to load, is not a vision-language model, or is
            of an unknown family; the machine lacks a requirement; or the adapter does not fit or was trained
            on a different model.
    """
    if dtype not in (*checkpoints.DTYPES, *checkpoints.SHORT, "auto"):
        known = ", ".join(("auto", *checkpoints.DTYPES, *checkpoints.SHORT))
        raise LayeralignError(f"dtype {dtype!r}: expected one of {known}")
    if device_map == "meta":
        raise LayeralignError("device_map 'meta': loads no weights; use layeralign inspect, which needs none")
    found = checkpoints.find_model(model, revision)
    family = family_of(found.name, found.config())
    family.check(variant)
    number = getattr(torch, number_format(found, dtype, device_map))
    options: dict[str, Any] = {"dtype": number}
    if quantize is not None:
        placement.check_quantize(quantize)
        exact = placement.beside_the_language_model(empty(model, revision=revision, variant=variant))
        options["quantization_config"] = placement.quantization(quantize, number, exact)
        device_map = device_map or {"": own_device()}
    options |= {} if device_map is None else {"device_map": device_map}
    fitted = None if adapter is None else checkpoints.find_adapter(adapter)
    unchanged = watched(fitted.path.glob("adapter_*") if fitted else (), f"model {found.name}")
    found.hashes  # noqa: B018 - hash the files before they are loaded
    other_base = "" if fitted is None else base.check(fitted, found, allow=allow_base)
    processor = _processor(found, family)
    loaded = pretrained(AutoModelForImageTextToText, found, f"model {found.name}", **options)
    own = loaded.generation_config
    # Drop the checkpoint's own beams, penalties and sampling: the caller chooses them
    loaded.generation_config = GenerationConfig(
        bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
    )
    if fitted is not None:
        on_disk = any(weight.is_meta for weight in loaded.parameters())
        loaded = _adapted(loaded, fitted, merge=quantize is None and not on_disk)
        finite.check_weights(loaded.state_dict(), f"model {found.name} + adapter {fitted.name}")
    unchanged()
    if device_map is None:
        loaded = loaded.to(own_device())
    vlm = family(loaded.eval(), processor, found, variant)
    vlm.adapter, vlm.other_base, vlm.quantize = fitted, other_base, quantize
    vlm.exits  # noqa: B018 - refuse an encoder without usable exits now
    if not vlm.own_tower:
        proof.prove(vlm)
    vlm.check_names()
    return vlm


def empty(model: str | Path, *, revision: str | None = None, variant: str | None = None) -> Vlm:
    """Build a model from its config on torch's meta device, without weights and processor.

    Raises:
        LayeralignError: See `load`.
    """
    return _empty(checkpoints.find_model(model, revision, weights=False), variant)


def shape(config: Mapping[str, Any], name: str, variant: str | None = None) -> Vlm:
    """Build a model without weights, as `empty`, from the content of a config.json.

    Args:
        config: Content of the config.json.
        name: Name of the model for messages.
        variant: See `load`.

    Raises:
        LayeralignError: See `load`.
    """
    with _written(config, name) as found:
        return _empty(found, variant)


def filled(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Complete the content of a config.json with transformers' defaults, without building a model.

    Raises:
        LayeralignError: Transformers cannot read it.
    """
    with _written(config, name) as found:
        return dict(_read(found).to_dict())


@contextmanager
def _written(config: Mapping[str, Any], name: str) -> Iterator[checkpoints.Checkpoint]:
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(dict(config)), encoding="utf-8")
        yield checkpoints.Checkpoint(name, Path(folder))


def _read(found: checkpoints.Checkpoint, kind: Any = None) -> PreTrainedConfig:
    """Read config.json, after it was tried out for building a model of a class `kind`."""
    limits.try_out(found.path, f"model {found.name}", kind)
    with quiet():
        try:
            config = limits.config_of(found.path)
        except Exception as error:  # transformers raises many kinds for a broken config
            raise unloadable(f"model {found.name}", error) from error
    assert isinstance(config, PreTrainedConfig)  # noqa: S101 - for the type checker
    return config


def _empty(found: checkpoints.Checkpoint, variant: str | None) -> Vlm:
    family = family_of(found.name, found.config())
    family.check(variant)
    config = _read(found, AutoModelForImageTextToText)
    with quiet(), torch.device("meta"):
        try:
            made = AutoModelForImageTextToText.from_config(config)
        except Exception as error:  # transformers raises many kinds for a broken config
            raise unloadable(f"model {found.name}", error) from error
    vlm = family(made.eval(), None, found, variant)
    vlm.exits  # noqa: B018 - as in load
    return vlm


def _processor(found: checkpoints.Checkpoint, family: type[Vlm]) -> ProcessorMixin:
    kind = str(found.config().get("model_type"))
    trial.check(lambda: processors.load(found.path, kind), f"model {found.name}")
    with quiet():
        try:
            processor = processors.load(found.path, kind)
        except Exception as error:  # transformers raises many kinds for a broken checkpoint
            raise unloadable(f"model {found.name}", error) from error
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise LayeralignError(
            f"model {found.name}: has no processor for pictures and text; add processor and tokenizer files"
        )
    if getattr(processor, "chat_template", None) is None and family.prompt is Vlm.prompt:
        raise LayeralignError(
            f"model {found.name}: its processor has no chat template; add chat_template.jinja"
        )
    _check_reads(processor.tokenizer, f"model {found.name}")
    return processor


def pretrained(
    kind: Any,
    found: checkpoints.Checkpoint,
    what: str,
    *,
    new: Collection[str] = (),
    labels: int | None = None,
    **options: Any,
) -> Any:
    """Load a complete checkpoint into a transformers class, from safetensors and without its own code.

    Args:
        kind: An auto class of transformers.
        found: The checkpoint.
        what: Description for messages, such as `model NAME`.
        new: Names of weights that the checkpoint may lack, and that are then random.
        labels: Number of outputs of a classifier, other than the config's.
        options: Further arguments of `from_pretrained`, none of them the config's.

    Raises:
        LayeralignError: The checkpoint cannot be loaded, lacks weights, has more layers than its config, or
            has non-finite weights, or a file changes.
    """
    options |= {
        "trust_remote_code": False, "local_files_only": True, "use_safetensors": True,
        "output_loading_info": True, "ignore_mismatched_sizes": True,
    }  # fmt: skip
    found.hashes  # noqa: B018 - hash the files before they are loaded
    times = _PACKED if "quantization_config" in limits.keys(found.config()) else _TIED
    limits.try_out(found.path, what, kind, times * found.parameters(), found.tensors())
    with quiet(bars=found.large and sys.stderr.isatty()), offline():
        try:
            config = limits.config_of(found.path)
            config.num_labels = labels or config.num_labels
            loaded, report = kind.from_pretrained(found.path, config=config, **options)
        except Exception as error:  # transformers raises many kinds for a broken checkpoint
            raise unloadable(what, error) from error
    lacks = set(report["missing_keys"]) - set(new)
    limits.check_weights(loaded, lacks, report, what)
    finite.check_weights(loaded.state_dict(), what)
    found.unchanged()
    return loaded


def tokenizer(found: checkpoints.Checkpoint, what: str) -> Any:
    """Load a checkpoint's tokenizer; for `what` see `pretrained`.

    Raises:
        LayeralignError: It cannot be loaded.
    """

    @offline()
    def load() -> Any:
        return AutoTokenizer.from_pretrained(found.path, trust_remote_code=False, local_files_only=True)

    trial.check(load, what)
    with quiet():
        try:
            names = load()
        except Exception as error:  # transformers raises many kinds for a broken checkpoint
            raise unloadable(what, error) from error
    _check_reads(names, what)
    return names


def _check_reads(names: Any, what: str) -> None:
    """Refuse a tokenizer that fails at any text, as one without its own unknown token does, or draws lots."""
    texts = [text[:400] for text in trial.TEXTS]  # all of them were read in a child process
    with quiet():
        try:
            first, *others = (names(texts, add_special_tokens=False)["input_ids"] for _ in range(3))
        except Exception as error:  # tokenizers raises plain exceptions
            raise unloadable(f"{what}: its tokenizer", error) from error
    if any(other != first for other in others):
        raise LayeralignError(
            f"{what}: its tokenizer reads a text otherwise each time; remove the dropout from tokenizer.json"
        )


def release() -> None:
    """Free the memory of models that are no longer referenced."""
    gc.collect()  # their modules form reference cycles
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def unloadable(what: str, error: Exception) -> LayeralignError:
    """The error for a checkpoint that transformers cannot load."""
    reason = printable(str(error), 200) or type(error).__name__
    if isinstance(error, KeyError):
        reason = f"its files have no {reason}"
    return LayeralignError(f"{what}: cannot be loaded ({reason})")


def number_format(
    found: checkpoints.Checkpoint, dtype: str, device_map: str | dict[str, Any] | None = None
) -> str:
    """Return the number format that `load` uses for a `dtype`: one of `DTYPES`."""
    if dtype != "auto":
        return checkpoints.SHORT.get(dtype, dtype)
    places = list(device_map.values()) if isinstance(device_map, dict) else [device_map]
    on_cpu = own_device().type == "cpu" or all(str(place) in ("cpu", "disk") for place in places)
    return "float32" if on_cpu else found.dtype()


def own_device() -> torch.device:
    """This process's GPU (by `LOCAL_RANK`, which launchers set), else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _weights(adapter: checkpoints.Adapter) -> dict[str, torch.Tensor]:
    try:
        return load_file(adapter.path / "adapter_model.safetensors")
    except Exception as error:  # safetensors raises types of its own
        raise unloadable(f"adapter {adapter.name}: adapter_model.safetensors", error) from error


def _adapted(model: Any, adapter: checkpoints.Adapter, *, merge: bool) -> Any:
    """Apply an adapter to a model: merged into its weights, or separate if they are quantised or on disk."""
    from peft import PeftModel

    config = lora_config(adapter, [name for name, _ in model.named_modules() if name])
    adapter.hashes  # noqa: B018 - hash the files before they are loaded
    weights = _weights(adapter)
    finite.check_weights(weights, f"adapter {adapter.name}")
    with quiet():
        try:
            wrapped = PeftModel(model, config, low_cpu_mem_usage=True)  # the base's weights may be on disk
            wrong = insert(wrapped, weights)
            adapted = wrapped.merge_and_unload() if merge else wrapped.get_base_model()
            if not merge:
                placement.keep_here(adapted, weights)
        except Exception as error:  # PEFT raises many types for an adapter that does not fit
            reason = printable(str(error), 200) or type(error).__name__
            raise LayeralignError(f"adapter {adapter.name}: does not fit this model ({reason})") from error
    if wrong:
        raise LayeralignError(
            f"adapter {adapter.name}: does not fit this model: {len(wrong)} weights do not match, such as "
            f"{wrong[0]}; load it with its own base model"
        )
    return adapted
