"""From a name to a loaded model."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForImageTextToText, GenerationConfig

from layeralign.errors import LayeralignError
from layeralign.text import printable
from layeralign.vlm import checkpoint as checkpoints
from layeralign.vlm import processor as processors
from layeralign.vlm.families import family_of
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
    revision: str | None = None,
    variant: str | None = None,
    dtype: str = "float32",
    device: str | None = None,
) -> Vlm:
    """Load a vision-language model, its weights from safetensors only, and never its own code.

    Args:
        model: a checkpoint folder, a hub id, or `testbed`, the model that ships with layeralign.
        adapter: folder of a LoRA adapter in PEFT's form, which is merged into the weights.
        revision: the hub's branch, tag or commit; for hub ids only.
        variant: how the family reads "exit at l", where it has several ways; see docs/families.md.
        dtype: `float32`, `bfloat16` or `float16`.
        device: a torch device; by default this process's GPU, else the CPU.

    Raises:
        LayeralignError: there is no such model, it is not safe to load, is no vision-language
            model, or is of a family that layeralign does not know.
    """
    if dtype not in DTYPES:
        raise LayeralignError(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    path = _TESTBED if model == "testbed" else model
    found = replace(checkpoints.find(path, revision), name=str(model))
    config = found.config()
    family = family_of(found.name, config)
    found.hashes  # noqa: B018 - what is loaded is what is hashed
    place = torch.device(device) if device else own_device()
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    with quiet():
        try:
            processor = processors.load(found.path, str(config.get("model_type")))
            options |= {"dtype": DTYPES[dtype], "use_safetensors": True, "output_loading_info": True}
            made: Any = AutoModelForImageTextToText.from_pretrained(found.path, **options)
        except Exception as error:  # transformers raises many kinds for a broken checkpoint
            reason = printable(str(error), 200) or type(error).__name__
            raise LayeralignError(f"model {found.name}: cannot be loaded ({reason})") from error
    loaded, report = made
    if missing := sorted(report["missing_keys"]):
        raise LayeralignError(
            f"model {found.name}: the checkpoint lacks {len(missing)} weights that its class "
            f"needs, {missing[0]} among them; they would be random, so it is not used"
        )
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise LayeralignError(f"model {found.name}: has no processor for pictures and text beside it")
    if getattr(processor, "chat_template", None) is None and family.prompt is Vlm.prompt:
        raise LayeralignError(
            f"model {found.name}: its processor has no chat template; add chat_template.jinja"
        )
    own = loaded.generation_config
    loaded.generation_config = GenerationConfig(  # beams, penalties and sampling are the caller's to choose
        bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
    )
    fitted = None if adapter is None else checkpoints.find_adapter(adapter)
    if fitted is not None:
        loaded = _merge(loaded, fitted)
    vlm = family(loaded.to(place).eval(), processor, found, variant)
    vlm.adapter = fitted
    vlm.exits  # noqa: B018 - an encoder without usable exits is refused here, not later
    return vlm


def own_device() -> torch.device:
    """This process's GPU where there is one - each of a launcher's processes has its own -, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def _merge(model: Any, adapter: checkpoints.Adapter) -> Any:
    """Add an adapter into a model's weights."""
    from peft import LoraConfig, PeftModel

    adapter.hashes  # noqa: B018 - what is loaded is what is hashed
    with quiet():
        try:
            config = LoraConfig.from_pretrained(str(adapter.path))
            config.inference_mode = True
            wrapped = PeftModel(model, config)
            report = wrapped.load_adapter(str(adapter.path), "default", use_safetensors=True)
            merged = wrapped.merge_and_unload()
        except Exception as error:  # PEFT raises many kinds for an adapter that does not fit
            reason = printable(str(error), 200) or type(error).__name__
            raise LayeralignError(
                f"adapter {adapter.name}: cannot be put on this model ({reason})"
            ) from error
    wrong = [key for key in report.missing_keys if "lora_" in key] + list(report.unexpected_keys)
    if wrong:
        raise LayeralignError(
            f"adapter {adapter.name}: is for another model; {len(wrong)} weights do not match, "
            f"{wrong[0]} among them"
        )
    return merged
