"""From a name to a loaded model."""

from __future__ import annotations

import gc
import importlib.util
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedConfig,
    ProcessorMixin,
)

from layeralign._util.text import printable
from layeralign.errors import LayeralignError
from layeralign.vlm import base, finite
from layeralign.vlm import checkpoint as checkpoints
from layeralign.vlm import processor as processors
from layeralign.vlm.families.registry import family_of
from layeralign.vlm.vlm import Vlm

_TESTBED = Path(__file__).parent.parent / "testbed" / "model"

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""What `--dtype` takes."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' warnings and bars, which a user cannot act on, off the terminal."""
    logs = transformers.utils.logging
    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity(logging.CRITICAL)
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()


def load(
    model: str | Path,
    *,
    adapter: str | Path | None = None,
    allow_base: bool = False,
    revision: str | None = None,
    variant: str | None = None,
    dtype: str = "float32",
    device_map: str | dict[str, Any] | None = None,
    quantize: str | None = None,
) -> Vlm:
    """Load a vision-language model, its weights from safetensors only, and never its own code.

    Args:
        model: a checkpoint folder, a hub id, or `testbed`, the model that ships with layeralign.
        adapter: folder of a LoRA adapter in PEFT's form, which is merged into the weights.
        allow_base: load an adapter that was trained on a different model, too; runs record it.
        revision: the hub's branch, tag or commit; for hub ids only.
        variant: how the family reads "exit at l", where it has several ways; see docs/families.md.
        dtype: `float32`, `bfloat16` or `float16`.
        device_map: a torch device, or accelerate's `auto`, `balanced`, `sequential`, or a map from
            modules to devices; by default this process's GPU, else the CPU.
        quantize: `4bit` or `8bit`, of the language model alone; wants CUDA and bitsandbytes.

    Raises:
        LayeralignError: there is no such model, it is not safe to load, is no vision-language
            model, is of a family that layeralign does not know, or the machine lacks what it takes;
            or the adapter does not fit, or was trained on a different model.
    """
    if dtype not in DTYPES:
        raise LayeralignError(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    if device_map == "meta":
        raise LayeralignError("device_map 'meta': loads no weights; use layeralign inspect, which needs none")
    found = find(model, revision)
    family = family_of(found.name, found.config())
    family.check(variant)
    options: dict[str, Any] = {"dtype": DTYPES[dtype]}
    if quantize is not None:
        _check_quantize(quantize)
        exact = beside_the_language_model(empty(model, revision=revision, variant=variant))
        options["quantization_config"] = _quantization(quantize, DTYPES[dtype], exact)
        device_map = device_map or {"": own_device()}
    if device_map is not None:
        options["device_map"] = device_map
    fitted = None if adapter is None else checkpoints.find_adapter(adapter)
    found.hashes  # noqa: B018 - what is loaded is what is hashed
    other_base = "" if fitted is None else base.check(fitted, found, allow=allow_base)
    processor = _processor(found, family)
    loaded = pretrained(AutoModelForImageTextToText, found, f"model {found.name}", **options)
    own = loaded.generation_config
    loaded.generation_config = GenerationConfig(  # beams, penalties and sampling are the caller's to choose
        bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
    )
    if fitted is not None:
        finite.check_weights(load_file(fitted.path / "adapter_model.safetensors"), f"adapter {fitted.name}")
        loaded = _adapted(loaded, fitted, merge=quantize is None)
        finite.check_weights(loaded.state_dict(), f"model {found.name} + adapter {fitted.name}")
    if device_map is None:
        loaded = loaded.to(own_device())
    vlm = family(loaded.eval(), processor, found, variant)
    vlm.adapter, vlm.other_base, vlm.quantize = fitted, other_base, quantize
    vlm.exits  # noqa: B018 - an encoder without usable exits is refused here, not later
    vlm.check_names()
    return vlm


def find(model: str | Path, revision: str | None = None, *, weights: bool = True) -> checkpoints.Checkpoint:
    """The checkpoint that `model` names, as in `load`; without `weights` its config is enough."""
    path = _TESTBED if model == "testbed" else model
    return replace(checkpoints.find(path, revision, weights=weights), name=str(model))


def empty(model: str | Path, *, revision: str | None = None, variant: str | None = None) -> Vlm:
    """A model's shape from its config alone, on torch's meta device; it has no weights and no processor.

    Raises:
        LayeralignError: as `load`.
    """
    return _empty(find(model, revision, weights=False), variant)


def shape(config: Mapping[str, Any], name: str, variant: str | None = None) -> Vlm:
    """The same from what a `config.json` holds; `name` is what it is called in messages.

    Raises:
        LayeralignError: as `load`.
    """
    with _written(config, name) as found:
        return _empty(found, variant)


def filled(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a `config.json` holds, with transformers' defaults for what it leaves out; nothing is built.

    Raises:
        LayeralignError: transformers cannot read it.
    """
    with _written(config, name) as found:
        return dict(_read(found).to_dict())


@contextmanager
def _written(config: Mapping[str, Any], name: str) -> Iterator[checkpoints.Checkpoint]:
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(dict(config)), encoding="utf-8")
        yield checkpoints.Checkpoint(name, Path(folder))


def _read(found: checkpoints.Checkpoint) -> PreTrainedConfig:
    with quiet():
        try:
            config = AutoConfig.from_pretrained(found.path, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # transformers raises many kinds for a broken config
            raise unloadable(f"model {found.name}", error) from error
    assert isinstance(config, PreTrainedConfig)  # noqa: S101 - for the type checker
    return config


def _empty(found: checkpoints.Checkpoint, variant: str | None) -> Vlm:
    family = family_of(found.name, found.config())
    family.check(variant)
    config = _read(found)
    with quiet(), torch.device("meta"):
        try:
            made = AutoModelForImageTextToText.from_config(config)
        except Exception as error:  # transformers raises many kinds for a broken config
            raise unloadable(f"model {found.name}", error) from error
    vlm = family(made.eval(), None, found, variant)
    vlm.exits  # noqa: B018 - as in load
    return vlm


def _processor(found: checkpoints.Checkpoint, family: type[Vlm]) -> ProcessorMixin:
    with quiet():
        try:
            processor = processors.load(found.path, str(found.config().get("model_type")))
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
    return processor


def pretrained(kind: Any, found: checkpoints.Checkpoint, what: str, **options: Any) -> Any:
    """A checkpoint's weights in a transformers class: all of them, from safetensors, without code of its own.

    Args:
        kind: an auto class of transformers.
        found: the checkpoint.
        what: what it is to the user, as `model NAME`, for messages.
        options: what `from_pretrained` takes besides.

    Raises:
        LayeralignError: it cannot be loaded, or lacks weights.
    """
    options |= {
        "trust_remote_code": False, "local_files_only": True, "use_safetensors": True,
        "output_loading_info": True,
    }  # fmt: skip
    with quiet():
        try:
            loaded, report = kind.from_pretrained(found.path, **options)
        except Exception as error:  # transformers raises many kinds for a broken checkpoint
            raise unloadable(what, error) from error
    if missing := sorted(report["missing_keys"]):
        raise LayeralignError(
            f"{what}: the checkpoint lacks {len(missing)} weights that its class needs, such as "
            f"{missing[0]}; use a complete checkpoint, since these weights would be random"
        )
    finite.check_weights(loaded.state_dict(), what)
    return loaded


def tokenizer(found: checkpoints.Checkpoint, what: str) -> Any:
    """A checkpoint's tokenizer.

    Raises:
        LayeralignError: it cannot be loaded; `what` is as in `pretrained`.
    """
    with quiet():
        try:
            return AutoTokenizer.from_pretrained(found.path, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # transformers raises many kinds for a broken checkpoint
            raise unloadable(what, error) from error


def release() -> None:
    """Give back the memory of models that nothing holds any more."""
    gc.collect()  # their modules refer to each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def unloadable(what: str, error: Exception) -> LayeralignError:
    """What transformers' errors come to for a user."""
    reason = printable(str(error), 200) or type(error).__name__
    return LayeralignError(f"{what}: cannot be loaded ({reason})")


def _check_quantize(quantize: str) -> None:
    if quantize not in ("4bit", "8bit"):
        raise LayeralignError(f"quantize {quantize!r}: expected 4bit or 8bit")
    if not torch.cuda.is_available():
        raise LayeralignError(f"quantize {quantize}: needs a CUDA GPU, but none is available; remove it")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise LayeralignError(f"quantize {quantize}: needs bitsandbytes; pip install bitsandbytes")


def beside_the_language_model(vlm: Vlm) -> list[str]:
    """The parts that are never quantised: all that is not inside the language model, by full names.

    As patterns that transformers matches from the start of a module's full name.
    """
    inner = vlm.path_of(vlm.model.get_decoder())
    outer = {inner[:at] for at, letter in enumerate(inner) if letter == "."} | {""}
    parents = ((name, name.rpartition(".")[0]) for name, _ in vlm.model.named_modules() if name)
    return [re.escape(name) for name, parent in parents if parent in outer and name not in {*outer, inner}]


def _quantization(quantize: str, dtype: torch.dtype, exact: list[str]) -> BitsAndBytesConfig:
    """For the language model alone; the encoder stays exact, for its exits are what is measured."""
    return BitsAndBytesConfig(
        load_in_4bit=quantize == "4bit", load_in_8bit=quantize == "8bit", bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_type="nf4", llm_int8_skip_modules=exact,
    )  # fmt: skip


def own_device() -> torch.device:
    """This process's GPU where there is one - each of a launcher's processes has its own -, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _adapted(model: Any, adapter: checkpoints.Adapter, *, merge: bool) -> Any:
    """Put an adapter on a model: into its weights, or beside them, where they are quantised."""
    from peft import LoraConfig, PeftModel

    adapter.hashes  # noqa: B018 - what is loaded is what is hashed
    with quiet():
        try:
            config = LoraConfig.from_pretrained(str(adapter.path))
            config.inference_mode = True
            wrapped = PeftModel(model, config)
            report = wrapped.load_adapter(str(adapter.path), "default", use_safetensors=True)
            adapted = wrapped.merge_and_unload() if merge else wrapped.get_base_model()
        except Exception as error:  # PEFT raises many kinds for an adapter that does not fit
            reason = printable(str(error), 200) or type(error).__name__
            raise LayeralignError(f"adapter {adapter.name}: does not fit this model ({reason})") from error
    wrong = [key for key in report.missing_keys if "lora_" in key] + list(report.unexpected_keys)
    if wrong:
        raise LayeralignError(
            f"adapter {adapter.name}: does not fit this model: {len(wrong)} weights do not match, such as "
            f"{wrong[0]}; load it with its own base model"
        )
    return adapted
